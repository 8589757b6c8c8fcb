"""Where each slice of a DICOM file lies and what its stored numbers mean: one plane, or one a frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydicom.dataset import Dataset

from duomod.datasets.dicom.header import Header, Unusable, numbers, said_as, text, whole

_EXPORT = "export the series again with it; it must not be guessed"
_CORRECT = "correct the header, or export the series again"

#: Elements in which the slices of one stack agree, with the sequence that holds each in a multi-frame file. Slices that
#: differ in them are of several patients, several scans, or several images of one place.
_AGREE = {
    "PatientID": "",
    "StudyInstanceUID": "",
    "FrameOfReferenceUID": "",
    "Modality": "",
    "SOPClassUID": "",
    "Rows": "",
    "Columns": "",
    "BitsAllocated": "",
    "BitsStored": "",
    "PixelRepresentation": "",
    "RescaleType": "PixelValueTransformationSequence",
    "Units": "",
    "ConvolutionKernel": "CTReconstructionSequence",
    "KVP": "CTXRayDetailsSequence",
    "EchoNumbers": "",
    "EchoTime": "",
    "EffectiveEchoTime": "MREchoSequence",
    "InversionTime": "",
    "DiffusionBValue": "MRDiffusionSequence",
    "TemporalPositionIdentifier": "",
    "TemporalPositionIndex": "FrameContentSequence",
    "StackID": "FrameContentSequence",
    "ComplexImageComponent": "MRImageFrameTypeSequence",
}


@dataclass(frozen=True)
class Plane:
    """One slice.

    Attributes:
        path: Its file.
        frame: Its place in the file, from 0.
        instance: The number that the scanner gave it; None where there is none.
        position_mm: Centre of the first voxel, (x, y, z) in DICOM's world (LPS).
        orientation: Directions of a row and of a column, (x, y, z) each.
        pixel_mm: Distance of rows, distance of columns.
        rescale: Slope and intercept from stored numbers to values; None where there are none.
        agree: Values of the elements in which the slices of one stack agree.
    """

    path: Path
    frame: int
    instance: int | None
    position_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_mm: tuple[float, ...]
    rescale: tuple[float, float] | None
    agree: Mapping[str, str]


def planes_of(header: Header) -> list[Plane]:
    """Return the slices of a file, in its order.

    Raises:
        Unusable: an element that is needed is missing or makes no sense, or the pixels are not grey values.
    """
    data = header.data
    _check_pixels(data)
    frames = whole(data, "NumberOfFrames") or 1
    per_frame = _items(data, "PerFrameFunctionalGroupsSequence")
    if (frames != 1 or per_frame) and len(per_frame) != frames:
        places = f"the places of {len(per_frame)}" if per_frame else "no place for each of them"
        raise Unusable(
            f"{frames} frames, but {places},",
            "export the series as single slices, or as enhanced CT or MR with the place of each frame",
        )
    shared = _items(data, "SharedFunctionalGroupsSequence")[:1]
    return [_plane(header, number, [*per_frame[number : number + 1], *shared]) for number in range(frames)]


def _plane(header: Header, frame: int, groups: list[Dataset]) -> Plane:
    data = header.data
    position = _needed("ImagePositionPatient", 3, data, groups, "PlanePositionSequence")
    orientation = _needed("ImageOrientationPatient", 6, data, groups, "PlaneOrientationSequence")
    spacing = _needed("PixelSpacing", 2, data, groups, "PixelMeasuresSequence")
    if not all(1e-3 <= one <= 100 for one in spacing):
        raise Unusable(f"PixelSpacing {spacing[0]:g} x {spacing[1]:g} mm", _CORRECT)
    if max(map(abs, position)) > 1e5:
        raise Unusable(f"ImagePositionPatient {max(position, key=abs):g} mm", _CORRECT)
    agree = [(keyword, text(_holder(data, groups, sequence, keyword), keyword)) for keyword, sequence in _AGREE.items()]
    instance = "" if groups else text(data, "InstanceNumber")
    return Plane(
        header.path,
        frame,
        # It only helps to say which slices may be missing.
        int(instance) if instance.isdecimal() else None,
        position,
        orientation,
        spacing,
        _rescale(_holder(data, groups, "PixelValueTransformationSequence", "RescaleSlope", "RescaleIntercept")),
        dict(agree),
    )


def _check_pixels(data: Dataset) -> None:
    if whole(data, "SamplesPerPixel") not in (None, 1) or text(data, "PhotometricInterpretation") != "MONOCHROME2":
        meaning = text(data, "PhotometricInterpretation")
        what = "inverted grey values" if meaning == "MONOCHROME1" else "no grey values"
        raise Unusable(
            f"{what} (PhotometricInterpretation {meaning or 'absent'})", "export the original slices (MONOCHROME2)"
        )
    for keyword in ("Rows", "Columns"):
        if (whole(data, keyword) or 0) < 1:
            raise Unusable(f"no {keyword}", "export the series again")
    if whole(data, "BitsAllocated") not in (8, 16, 32, 64):
        raise Unusable(f"BitsAllocated {text(data, 'BitsAllocated') or 'absent'}", "export the series with 16 bits")
    if _items(data, "ModalityLUTSequence"):
        raise Unusable("values behind a table (ModalityLUTSequence)", "export the series with RescaleSlope instead")


def _rescale(data: Dataset) -> tuple[float, float] | None:
    slope, intercept = numbers(data, "RescaleSlope", 1), numbers(data, "RescaleIntercept", 1)
    if slope is None and intercept is None:
        return None
    if slope is None or intercept is None:
        missing = "RescaleSlope" if slope is None else "RescaleIntercept"
        raise Unusable(f"no {missing}", _EXPORT)
    if slope[0] <= 0 or max(abs(slope[0]), abs(intercept[0])) > 1e9:
        raise Unusable(f"RescaleSlope {slope[0]:g} and RescaleIntercept {intercept[0]:g}", _CORRECT)
    return slope[0], intercept[0]


def _holder(data: Dataset, groups: list[Dataset], sequence: str, *keywords: str) -> Dataset:
    """The data set that holds an element: a frame's own, what all frames share, or else the file's."""
    for group in groups:
        for item in _items(group, sequence)[:1] if sequence else []:
            if any(keyword in item for keyword in keywords):
                return item
    return data


def _needed(keyword: str, count: int, data: Dataset, groups: list[Dataset], sequence: str) -> tuple[float, ...]:
    found = numbers(_holder(data, groups, sequence, keyword), keyword, count)
    if found is None:
        raise Unusable(f"no {keyword}", _EXPORT)
    return found


def _items(data: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none where it is not there.

    Raises:
        Unusable: it is damaged.
    """
    with said_as(f"a damaged {keyword}", "copy the series again"):
        return list(cast(list[Dataset], data.get(keyword) or []))
