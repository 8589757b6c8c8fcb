"""From file names to case ids: the one place that knows the endings."""

from __future__ import annotations

from pathlib import Path

#: Endings of scans, and of label maps that are compared. The longest of those that fit is the ending.
SCAN_ENDINGS = (".nii.gz", ".nii")
LABEL_MAP_ENDINGS = (*SCAN_ENDINGS, ".mha", ".nrrd")

#: What may follow a case id in a file name or in a list of cases.
_ENDINGS = (*LABEL_MAP_ENDINGS, ".npy")


def case_id(file_name: str, image_suffix: str = "") -> str:
    """Return the case id in a file's name: without its ending (one of them) and without the data set's image suffix.

    An id may hold dots (``case.1``). A name without an ending is an id already; its suffix goes all the same.

    Args:
        file_name: Name without folders, such as ``amos_0001.nii.gz`` or ``amos_0001``.
        image_suffix: nnU-Net's ``_0000`` where the data set has it.
    """
    ending = next((ending for ending in _ENDINGS if file_name.endswith(ending)), "")
    return file_name.removesuffix(ending).removesuffix(image_suffix)


def is_nifti(path: Path) -> bool:
    """Whether a file's name is that of a NIfTI volume (hidden files are not)."""
    return path.name.endswith(SCAN_ENDINGS) and not path.name.startswith(".")


def is_label_map(path: Path) -> bool:
    """Whether a file's name is that of a label map that can be compared (hidden files are not)."""
    return path.name.endswith(LABEL_MAP_ENDINGS) and not path.name.startswith(".")
