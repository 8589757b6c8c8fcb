"""One DICOM file: what its header says, in checked values."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom import uid as uids
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.uid import UID

#: Float, double and integer pixel data.
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)

#: Objects that are slices, or stacks of them.
_SLICES = {
    uids.CTImageStorage,
    uids.EnhancedCTImageStorage,
    uids.LegacyConvertedEnhancedCTImageStorage,
    uids.MRImageStorage,
    uids.EnhancedMRImageStorage,
    uids.LegacyConvertedEnhancedMRImageStorage,
    uids.PositronEmissionTomographyImageStorage,
    uids.EnhancedPETImageStorage,
    uids.LegacyConvertedEnhancedPETImageStorage,
}
#: Objects that are slices where they say where they lie in the patient, and pictures where they do not.
_CAPTURES = {
    uids.SecondaryCaptureImageStorage,
    uids.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uids.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
}
_MOST_TEXT = 128


class Unusable(Exception):
    """What is wrong with one file or series, without its name: ``what`` precedes "in <files>", ``advice`` follows."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what, advice)
        self.what, self.advice = what, advice


DAMAGED = ("damaged DICOM header", "copy the series again, or remove what does not belong to it")


@contextmanager
def said_as(what: str, advice: str) -> Iterator[None]:
    """Say of a damaged file what is wrong with it: what it makes the libraries raise is not limited to some kinds.

    Too little memory stays that, and what the system refuses is said as such.

    Raises:
        Unusable: anything else was raised; its cause is kept for the log.
    """
    try:
        yield
    except (Unusable, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise Unusable(f"a file that cannot be opened ({error.strerror})", advice) from error
        raise Unusable(what, advice) from error


@dataclass(frozen=True)
class Header:
    """The header of a DICOM file.

    Attributes:
        path: The file.
        data: Its elements before the pixel data. They are converted when looked at, which may fail: see :func:`text`
            and :func:`numbers`.
        pixels: Whether pixel data follow.
    """

    path: Path
    data: Dataset
    pixels: bool

    @property
    def kind(self) -> str:
        """UID of the kind of object, empty where the file does not say."""
        meta: Dataset = getattr(self.data, "file_meta", Dataset())
        return text(self.data, "SOPClassUID") or text(meta, "MediaStorageSOPClassUID")

    @property
    def kind_name(self) -> str:
        """The kind of object in words, such as ``X-Ray Radiation Dose SR``."""
        return UID(self.kind).name.removesuffix(" Storage") if self.kind else "no slice"

    @property
    def placed(self) -> bool:
        """Whether it says where in the patient it lies."""
        return "PerFrameFunctionalGroupsSequence" in self.data or (
            "ImagePositionPatient" in self.data and "ImageOrientationPatient" in self.data
        )

    @property
    def is_slice(self) -> bool:
        """Whether it is a slice or a stack of them, and not a report, a picture, a contour or the like.

        Raises:
            Unusable: it cannot be said, or the pixel data of a slice are gone.
        """
        kind = self.kind
        # The name of an unknown kind is its UID; a kind that is cut off is unknown, too.
        name = UID(kind).name
        if not self.pixels and (name == kind or "Image Storage" in name):
            raise Unusable("a file that ends before its pixel data", DAMAGED[1])
        if kind in _SLICES or (not kind and text(self.data, "Modality") in ("CT", "MR", "PT")):
            return True
        return self.pixels and self.placed and (kind in _CAPTURES or name == kind)

    @property
    def is_localizer(self) -> bool:
        """Whether it says that it is the overview that slices are planned on."""
        return "LOCALIZER" in text(self.data, "ImageType").split("\\")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back pydicom's own warnings, which name no file; what matters of them is an error of ours."""
    log = logging.getLogger("pydicom")
    before = log.disabled
    log.disabled = True
    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = before


def read_header(path: Path) -> Header | None:
    """Read a file's header; None where the content is not DICOM, whatever the name.

    Raises:
        Unusable: it starts like DICOM and cannot be read.
    """
    reached: list[BaseTag] = []

    def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        if tag in _PIXELS:
            reached.append(tag)
        return bool(reached)

    with said_as(*DAMAGED), open(path, "rb") as stream:
        start = stream.read(1024)
        signed = start[128:132] == b"DICM"
        if not signed and not _starts_with_element(start):
            return None
        if uids.DeflatedExplicitVRLittleEndian.encode() in start:
            raise Unusable("a deflated data set", "export it in another transfer syntax")
        stream.seek(0)
        data = read_partial(stream, stop_when=at_pixels, force=True)
    header = Header(path, data, bool(reached))
    return header if signed or header.kind else None


def _starts_with_element(start: bytes) -> bool:
    """Whether a file without DICOM's preamble may be a data set: it begins with group 2 or 8."""
    return len(start) > 8 and start[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08") and start[3:4] in (b"\x00", b"\x05")


def text(data: Dataset, keyword: str) -> str:
    """Return an element as one printable line, several values with backslashes between; empty if it is not there."""
    try:
        with said_as(*DAMAGED):
            value = data.get(keyword)
            values = value if isinstance(value, MultiValue | list | tuple) else [value]
            joined = "\\".join("" if one is None else str(one) for one in values)
    except Unusable:
        return "?"
    return "".join(c if c.isprintable() else "?" for c in joined.strip(" \0"))[:_MOST_TEXT]


def numbers(data: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Return an element as finite numbers; None if it is not there or empty.

    Raises:
        Unusable: it holds something else.
    """
    written = text(data, keyword)
    if not written:
        return None
    try:
        with said_as(*DAMAGED):
            value = data[keyword].value
            parts = [str(one) for one in value] if count > 1 else [str(value)]
            # Python would take digits with underscores between for a number.
            values = tuple(float(part) for part in parts if "_" not in part and part.isascii())
    except Unusable:
        values = ()
    if len(values) != count or not all(map(math.isfinite, values)):
        few = "a number" if count == 1 else f"{count} numbers"
        raise Unusable(f"{keyword} '{written}', which is not {few}", "correct the header, or export the series again")
    return values


def whole(data: Dataset, keyword: str) -> int | None:
    """Return an element as a whole number; None if it is not there or empty.

    Raises:
        Unusable: it holds something else.
    """
    found = numbers(data, keyword, 1)
    if found is None:
        return None
    if found[0] != int(found[0]):
        raise Unusable(f"{keyword} {found[0]:g}, which is not whole", "correct the header, or export the series again")
    return int(found[0])
