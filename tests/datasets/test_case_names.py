"""One function from file names to case ids, at its borders."""

from __future__ import annotations

import time
import unicodedata
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from duomod.datasets.case_names import CaseId, case_id, check_case_id, is_nifti, is_scan, shown
from duomod.datasets.spec import load_spec
from duomod.datasets.splits import read_list
from duomod.errors import InputError


@pytest.mark.parametrize(
    ("name", "suffix", "wanted"),
    [
        ("amos_0001.nii.gz", "", "amos_0001"),
        ("amos_0001.nii", "", "amos_0001"),
        ("case.1.nii.gz", "", "case.1"),
        ("case.1", "", "case.1"),
        ("a.mha", "", "a"),
        ("a.nrrd", "", "a"),
        ("a.npy", "", "a"),
        ("a.npy.nii.gz", "", "a.npy"),  # one ending is the ending
        ("a.gz", "", "a.gz"),
        ("a.NII.GZ", "", "a"),
        ("nii", "", "nii"),
        ("F_0001_0000.nii.gz", "_0000", "F_0001"),
        ("F_0001_0000", "_0000", "F_0001"),
        ("F_0001.nii.gz", "_0000", "F_0001"),
        ("amos_0000.nii.gz", "", "amos_0000"),
        ("F_0000_0000.nii", "_0000", "F_0000"),
    ],
)
def test_a_name_becomes_an_id(name: str, suffix: str, wanted: str) -> None:
    assert case_id(name, suffix) == wanted


def test_a_description_and_a_list_give_the_same_ids(tmp_path: Path) -> None:
    names = ["a.1.nii.gz", "b.nii", "c_0000.nii.gz", "d.npy", "e"]
    (tmp_path / "list.txt").write_text("\n".join(names))
    assert read_list(tmp_path / "list.txt") == tuple(map(load_spec("amos22").case_id, names))
    assert load_spec("flare22").case_id("F_1.5_0000.nii.gz") == "F_1.5"


def test_accents_of_macs_and_of_others_are_one_id() -> None:
    assert case_id(unicodedata.normalize("NFD", "Müller.nii.gz")) == case_id("M\u00fcller.nii.gz") == "M\u00fcller"


def test_hidden_files_are_no_scans() -> None:
    for name in ("a.nii.gz", "a.nii", "a.NII.GZ", "a.Nii"):
        assert is_nifti(Path(name))
        assert is_scan(Path(name))
    for name in ("a.mha", "a.MHD", "a.nrrd"):
        assert is_scan(Path(name))
        assert not is_nifti(Path(name))
    for name in (".part-a.nii.gz", "._a.nii.gz", "a.npy", "a.gz", "a.img", "nii"):
        assert not is_nifti(Path(name))
        assert not is_scan(Path(name))


@pytest.mark.parametrize("text", ["a", "case 1", "a..b", "Müller", "\u60a3\u8005", "a" * 200, "0", "a.nii.gz"])
def test_what_may_be_an_id(text: str) -> None:
    assert check_case_id(text) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("../../evil", "path"),
        ("/etc/passwd", "path"),
        ("a/b", "path"),
        ("a\\b", "path"),
        ("C:evil", "path"),
        ("..", "dot"),
        (".hidden", "dot"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("a\u2028b", "control"),
        ("caf\udce9", "UTF-8"),
        ("a" * 201, "longer"),
        ("\u60a3" * 67, "longer"),
    ],
)
def test_what_may_not_be_an_id(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        check_case_id(text)
    assert str(caught.value).isprintable()
    with pytest.raises(ValidationError, match=words):
        TypeAdapter(CaseId).validate_python(text)


def test_a_list_with_a_path_is_refused_whole(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a\n../../evil\n/etc/x\nb\nb\n")
    with pytest.raises(InputError) as caught:
        read_list(tmp_path / "list.txt")
    assert len(caught.value.problems) == 3
    assert all(str(tmp_path / "list.txt") in problem for problem in caught.value.problems)


def test_a_long_list_is_read_in_no_time(tmp_path: Path) -> None:
    ids = [f"case_{number}" for number in range(30_000)]
    (tmp_path / "list.txt").write_text("\n".join(ids))
    began = time.process_time()  # of this process: other work on the machine does not count
    assert read_list(tmp_path / "list.txt") == tuple(ids)
    assert time.process_time() - began < 2


def test_a_name_is_shown_without_what_a_terminal_would_obey() -> None:
    assert shown("caf\udce9\x1b[31m\n.nii") == "caf\\xe9\\x1b[31m\\n.nii"
