"""What a folder holds: every file is either used or named."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from duomod.datasets.folder import content, listed, without_suffix


def fill(folder: Path, files: str) -> Path:
    for name in files.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_every_file_is_used_or_named(tmp_path: Path) -> None:
    names = "b.nii a.NII.GZ c.nrrd d.mha e.mhd e.raw ._a.nii.gz .DS_Store notes.txt sub/x.nii.gz empty/y.txt f.img"
    found = content(fill(tmp_path, names))
    assert found.problems == ()
    assert {case: path.name for case, path in found.files.items()} == {
        "a": "a.NII.GZ", "b": "b.nii", "c": "c.nrrd", "d": "d.mha", "e": "e.mhd",
    }  # fmt: skip
    assert set(found.unread) == {"._a.nii.gz", ".DS_Store", "notes.txt", "sub/ (1 scan)", "empty/", "f.img"}
    assert found.summary.startswith(f"{tmp_path}: 9 files, 5 used; not read: ")


def test_a_folder_of_scans_alone_says_so_and_a_missing_one_is_empty(tmp_path: Path) -> None:
    assert content(fill(tmp_path, "a.nii.gz")).summary == f"{tmp_path}: 1 file, 1 used"
    assert content(tmp_path / "nowhere").files == {}


def test_the_image_suffix_goes(tmp_path: Path) -> None:
    assert list(content(fill(tmp_path, "a_0000.nii.gz b.nii"), "_0000").files) == ["a", "b"]


@pytest.mark.parametrize("other", ["a.nii", "a.NII.GZ", "a.mha", "a.nrrd"])
def test_two_files_of_one_case_are_named(tmp_path: Path, other: str) -> None:
    (problem,) = content(fill(tmp_path, f"a.nii.gz {other} b.nii.gz")).problems
    assert "2 files of the case a: " in problem
    assert "a.nii.gz" in problem
    assert other in problem


def test_accents_written_in_two_ways_are_two_files_of_one_case(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        (tmp_path / unicodedata.normalize(form, "Müller.nii.gz")).touch()
    (problem,) = content(tmp_path).problems
    assert "2 files of the case" in problem


def test_names_that_are_no_ids_are_problems(tmp_path: Path) -> None:
    for name in (b"caf\xe9.nii.gz", b"a\nb.nii.gz", b"a\\b.nii.gz"):
        os.close(os.open(os.fsencode(tmp_path) + b"/" + name, os.O_CREAT))
    found = content(fill(tmp_path, "good.nii.gz"))
    assert list(found.files) == ["good"]
    assert len(found.problems) == 3
    assert all(problem.isprintable() for problem in found.problems)
    assert any("caf\\xe9.nii.gz" in problem for problem in found.problems)


def test_a_folder_named_like_a_scan_is_a_problem(tmp_path: Path) -> None:
    (problem,) = content(fill(tmp_path, "a.nii.gz/a.nii")).problems
    assert "a.nii.gz: a folder" in problem


def test_long_lists_are_cut() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(n) for n in range(25)]).endswith("8, 9 and 15 more")


def test_a_label_map_named_like_its_image_meets_it() -> None:
    files = {name: Path(name) for name in ("p_0000", "p_0001", "q_0000")}
    assert list(without_suffix(files, ("p_0000", "p_0001", "q"), "_0000")) == ["p_0000", "p_0001", "q"]
    assert list(without_suffix(files, ("p", "p_0001", "q_0000"), "")) == list(files)
