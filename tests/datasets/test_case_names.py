"""One function from file names to case ids, at its borders."""

from __future__ import annotations

from pathlib import Path

import pytest

from duomod.datasets.case_names import case_id, is_label_map, is_nifti
from duomod.datasets.spec import load_spec
from duomod.datasets.splits import read_list


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
        ("a.NII.GZ", "", "a.NII.GZ"),
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


def test_hidden_files_are_neither_scans_nor_label_maps() -> None:
    assert is_nifti(Path("a.nii.gz"))
    assert is_nifti(Path("a.nii"))
    assert not is_nifti(Path(".part-a.nii.gz"))
    assert not is_nifti(Path("a.mha"))
    assert is_label_map(Path("a.mha"))
    assert not is_label_map(Path("a.npy"))
    assert not is_label_map(Path(".part-a.nii.gz"))
