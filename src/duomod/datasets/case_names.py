"""From file names to case ids: the one place that knows the endings, and what may be an id."""

from __future__ import annotations

import unicodedata
from pathlib import Path, PureWindowsPath
from typing import Annotated

from pydantic import AfterValidator

NIFTI_ENDINGS = (".nii.gz", ".nii")

#: Endings of scans and of label maps, in any case. The longest of those that fit is the ending.
SCAN_ENDINGS = (*NIFTI_ENDINGS, ".nrrd", ".mha", ".mhd")

#: What may follow a case id in a file name or in a list of cases.
_ENDINGS = (*SCAN_ENDINGS, ".npy")

#: Suffix of the first channel in nnU-Net's naming.
CHANNEL = "_0000"

#: Of an id, as bytes of UTF-8: file systems end at 255, and endings and the names of temporary files come on top.
_LONGEST_ID = 200


def case_id(file_name: str, image_suffix: str = "") -> str:
    """Return the case id in a file's name: without its ending (one of them) and without the data set's image suffix.

    An id may hold dots (``case.1``). A name without an ending is an id already; its suffix goes all the same. Macs
    write accented letters as two characters (NFD), others as one (NFC); ids are always NFC, so that both meet.

    Args:
        file_name: Name without folders, such as ``amos_0001.nii.gz`` or ``amos_0001``.
        image_suffix: nnU-Net's ``_0000`` where the data set has it.
    """
    name = unicodedata.normalize("NFC", file_name)
    return name[: len(name) - len(_ending(name))].removesuffix(image_suffix)


def _ending(name: str) -> str:
    return next((ending for ending in _ENDINGS if name.lower().endswith(ending)), "")


def check_case_id(text: str) -> str:
    """Return a case id that can safely become part of a file name, unchanged.

    Raises:
        ValueError: empty, too long, with a path separator, a drive, control characters or undecodable bytes, or with a
            dot at its beginning (so ``.`` and ``..``, too).
    """
    reason = None
    if not text:
        reason = "it is empty"
    elif "/" in text or "\\" in text or PureWindowsPath(text).drive:
        reason = "it holds a path"
    elif text.startswith("."):
        reason = "it begins with a dot"
    elif any(unicodedata.category(letter) == "Cs" for letter in text):
        reason = "it is not UTF-8"
    elif any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in text):
        reason = "it holds control characters"
    elif len(text.encode()) > _LONGEST_ID:
        reason = f"it is longer than {_LONGEST_ID} bytes"
    if reason is None:
        return text
    name = shown(text)
    raise ValueError(f"'{name if len(name) <= 80 else name[:80] + '...'}' cannot be a case id: {reason}")


#: The id of a case, in a file that others may have written: checked before it becomes part of a path.
CaseId = Annotated[str, AfterValidator(check_case_id)]


def shown(name: str | Path) -> str:
    """A file's name for a message: bytes that are not UTF-8 and control characters as escapes."""
    text = str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def is_nifti(path: Path) -> bool:
    """Whether a file's name is that of a NIfTI volume (hidden files are not)."""
    return path.name.lower().endswith(NIFTI_ENDINGS) and not path.name.startswith(".")


def is_scan(path: Path) -> bool:
    """Whether a file's name is that of a scan or a label map that can be read (hidden files are not)."""
    return path.name.lower().endswith(SCAN_ENDINGS) and not path.name.startswith(".")
