"""Stored numbers of a DICOM file, unpacked: by pydicom and Pillow, and by GDCM (in SimpleITK) for what these lack."""

from __future__ import annotations

import struct
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom import uid as uids
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from duomod.datasets.dicom.header import Unusable, said_as, text, whole

_BY_GDCM = {
    uids.JPEGExtended12Bit,
    uids.JPEGLossless,
    uids.JPEGLosslessSV1,
    uids.JPEGLSLossless,
    uids.JPEGLSNearLossless,
}
_JPEG_FAMILY = _BY_GDCM | {uids.JPEGBaseline8Bit, uids.JPEG2000, uids.JPEG2000Lossless}
_BY_PYDICOM = {
    uids.ImplicitVRLittleEndian,
    uids.ExplicitVRLittleEndian,
    uids.ExplicitVRBigEndian,
    uids.RLELossless,
    uids.JPEGBaseline8Bit,
    uids.JPEG2000,
    uids.JPEG2000Lossless,
}
_COPY = "copy the series again"

Stored = NDArray[Any]


def stored_numbers(data: Dataset) -> Stored:
    """Return the numbers as they are stored, (frames, rows, columns), before any rescaling.

    Args:
        data: A whole data set with grey values.

    Raises:
        Unusable: more or fewer pixels than the header says, a packing that cannot be read here, damaged packed data,
            or numbers of more bits than the header says.
    """
    shape = (whole(data, "NumberOfFrames") or 1, whole(data, "Rows") or 0, whole(data, "Columns") or 0)
    syntax = _syntax(data)
    if syntax not in _BY_PYDICOM | _BY_GDCM:
        raise Unusable(
            f"pixels packed as {syntax.name}, which cannot be unpacked here,",
            "unpack them, e.g. with 'gdcmconv --raw' or 'dcmdjpeg'",
        )
    with said_as(f"pixel data that cannot be read as {syntax.name}", _COPY):
        if syntax.is_encapsulated:
            _check_frames(data, syntax, shape)
        else:
            _check_length(data, shape)
        if syntax in _BY_GDCM:
            array = _by_gdcm(data, syntax, shape)
        else:
            with warnings.catch_warnings():
                # Run lengths that give more than rows x columns.
                warnings.filterwarnings("error", message=".*padding")
                array = pixel_array(data, raw=True, correct_unused_bits=False)
        array = array.reshape(shape)
    return array if array.dtype.kind == "f" else _without_unused_bits(array, data)


def _syntax(data: Dataset) -> UID:
    syntax = text(getattr(data, "file_meta", Dataset()), "TransferSyntaxUID")
    if not syntax:
        # Without a word about it, the way that the header could be read is the way.
        implicit, little = data.original_encoding
        plain = uids.ImplicitVRLittleEndian if implicit else uids.ExplicitVRLittleEndian
        syntax = plain if little else uids.ExplicitVRBigEndian
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = syntax
    return UID(syntax)


def _check_length(data: Dataset, shape: tuple[int, int, int]) -> None:
    """Refuse pixel data that are not exactly as long as rows, columns and bits ask for (but one byte of padding)."""
    keyword = next((word for word in ("FloatPixelData", "DoubleFloatPixelData") if word in data), "PixelData")
    needed = shape[0] * shape[1] * shape[2] * (whole(data, "BitsAllocated") or 0) // 8
    there = len(data.get(keyword) or b"")
    if not needed <= there <= needed + needed % 2:
        raise Unusable(
            f"{keyword} {'shorter' if there < needed else 'longer'} than the {needed:,} bytes of"
            f" {' x '.join(map(str, shape[shape[0] == 1 :]))} voxels",
            "the file is cut off or its header is wrong: " + _COPY,
        )


def _frames(data: Dataset, shape: tuple[int, int, int]) -> list[bytes]:
    return [bytes(frame) for frame in generate_frames(data.PixelData, number_of_frames=shape[0])]


def _check_frames(data: Dataset, syntax: UID, shape: tuple[int, int, int]) -> None:
    """Refuse packed frames that are too many or few, cut off, or of another size than the header says."""
    frames = _frames(data, shape)
    if len(frames) != shape[0]:
        raise Unusable(f"{len(frames)} packed frames where the header says {shape[0]}", _COPY)
    if syntax not in _JPEG_FAMILY:
        return
    for frame in frames:
        # After the end, only padding.
        end = frame.rfind(b"\xff\xd9")
        if end < 0 or frame[end + 2 :].strip(b"\0\xff"):
            raise Unusable("packed pixel data that are cut off", _COPY)
        size = _packed(frame)[1:]
        if size != shape[1:]:
            says = f"{size[0]} x {size[1]}" if all(size) else "no size"
            raise Unusable(f"packed pixels of {says} where the header says {shape[1]} x {shape[2]}", _COPY)


def _packed(frame: bytes) -> tuple[int, int, int]:
    """Bits, rows and columns that a JPEG, JPEG-LS or JPEG 2000 stream says; zeros if it does not."""
    if frame.startswith(b"\xff\x4f\xff\x51"):
        right, bottom, left, top = struct.unpack_from(">4I", frame, 8)
        return (frame[42] & 0x7F) + 1, bottom - top, right - left
    at = 2
    while frame.startswith(b"\xff\xd8") and at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        # Start-of-frame markers, JPEG-LS's among them; C4, C8 and CC are something else.
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            bits, rows, columns = struct.unpack_from(">BHH", frame, at + 4)
            return bits, rows, columns
        at += 1 if marker == 0xFF else 2 + struct.unpack_from(">H", frame, at + 2)[0]
    return 0, 0, 0


def _by_gdcm(data: Dataset, syntax: UID, shape: tuple[int, int, int]) -> Stored:
    """Unpack with GDCM: each frame in a file of its own that says nothing else, so that nothing is rescaled."""
    small = Dataset()
    small.SOPClassUID, small.SOPInstanceUID = uids.SecondaryCaptureImageStorage, "2.25.1"
    small.SamplesPerPixel, small.PhotometricInterpretation = 1, "MONOCHROME2"
    small.Rows, small.Columns = shape[1:]
    small.BitsAllocated, small.PixelRepresentation = data.BitsAllocated, 0
    small.file_meta = FileMetaDataset()
    small.file_meta.TransferSyntaxUID = syntax
    arrays = []
    with tempfile.TemporaryDirectory(prefix="duomod-dicom-") as folder:
        path = Path(folder) / "frame.dcm"
        for frame in _frames(data, shape):
            # GDCM chooses its codec by the bits; with the stream's own it does not try others first.
            small.BitsStored, small.HighBit = (bits := _packed(frame)[0]), bits - 1
            small.PixelData = encapsulate([frame])
            small["PixelData"].is_undefined_length = True
            small.save_as(path, enforce_file_format=True)
            arrays.append(sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="GDCMImageIO")))
    unsigned = np.stack(arrays).astype(f"u{data.BitsAllocated // 8}", casting="same_kind")
    return unsigned.view(f"i{unsigned.itemsize}") if data.PixelRepresentation else unsigned


def _without_unused_bits(array: Stored, data: Dataset) -> Stored:
    """Extend the sign of numbers that use fewer bits than are allocated.

    Raises:
        Unusable: numbers use more bits than the header says.
    """
    allocated, bits = array.dtype.itemsize * 8, whole(data, "BitsStored") or 0
    high = whole(data, "HighBit")
    if not 1 <= bits <= allocated or high not in (None, bits - 1):
        raise Unusable(f"BitsStored {bits} and HighBit {high} of {allocated}", "correct the header")
    lowest = -(1 << (bits - 1)) if array.dtype.kind == "i" else 0
    if array.size and (int(array.min()) < lowest or int(array.max()) >= 1 << bits):
        raise Unusable(
            f"numbers that need more than the {bits} bits of BitsStored",
            "correct the header, or export the series without overlays",
        )
    if array.dtype.kind == "u" or bits == allocated:
        return array
    return (array << (allocated - bits)) >> (allocated - bits)
