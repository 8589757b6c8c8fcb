"""DICOM files of a scan, written element by element so that a test can spoil each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian

#: Rows, columns and slices all differ, so that no two can be exchanged unseen.
SHAPE = (6, 5, 4)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
#: Rotated about two axes.
OBLIQUE = (0.866025, 0.433013, -0.25, -0.5, 0.75, -0.433013)

Spoil = Callable[[Dataset, int], None]


def hu() -> NDArray[np.int16]:
    """(slices, rows, columns); every voxel is another value."""
    return (np.arange(np.prod(SHAPE)).reshape(SHAPE) * 7 - 1000).astype(np.int16)


def slices(
    orientation: Sequence[float] = AXIAL,
    *,
    volume: NDArray[np.int16] | None = None,
    first_mm: Sequence[float] = (-10.0, 20.0, 5.0),
    step_mm: float = 2.5,
    uid: str = "1.2.3",
    modality: str = "CT",
) -> list[Dataset]:
    """CT slices of a volume: 0.9 mm from row to row, 0.7 mm from column to column, stored plus 1024."""
    volume = hu() if volume is None else volume
    normal = np.cross(orientation[:3], orientation[3:])
    return [
        _slice(voxels, np.asarray(first_mm) + number * step_mm * normal, orientation, number, (uid, modality))
        for number, voxels in enumerate(volume)
    ]


def _slice(
    voxels: NDArray[np.int16],
    at_mm: NDArray[np.float64],
    orientation: Sequence[float],
    number: int,
    kind: tuple[str, str],
) -> Dataset:
    uid, modality = kind
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, f"{uid}.{number + 1}"
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.Modality, data.PatientID = modality, "anonymous"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = "1.2", uid, "1.2.99"
    data.SeriesNumber, data.SeriesDescription, data.InstanceNumber = 3, "Thorax", number + 1
    data.ImagePositionPatient = [f"{one:.6f}" for one in at_mm]
    data.ImageOrientationPatient = [f"{one:.6f}" for one in orientation]
    data.PixelSpacing = ["0.9", "0.7"]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = voxels.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.RescaleSlope, data.RescaleIntercept = "1", "-1024"
    data.PixelData = (voxels.astype(np.int32) + 1024).astype("<u2").tobytes()
    return data


def write(folder: Path, datasets: Sequence[Dataset], spoil: Spoil | None = None, name: str = "I{:03d}.dcm") -> Path:
    """Write data sets as files ``I000.dcm`` and so on, each after ``spoil(data, number)``."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(datasets):
        if spoil is not None:
            spoil(data, number)
        save(folder / name.format(number), data)
    return folder


def save(path: Path, data: Dataset) -> None:
    """Write one data set with its preamble; little endian, with types, if it does not say otherwise."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = data.get("SOPClassUID", "")
    meta.MediaStorageSOPInstanceUID = data.get("SOPInstanceUID", "")
    meta.TransferSyntaxUID = getattr(data, "file_meta", Dataset()).get("TransferSyntaxUID", ExplicitVRLittleEndian)
    data.file_meta, data.preamble = meta, bytes(128)
    data.save_as(path, enforce_file_format=False)


def enhanced(single: Sequence[Dataset]) -> Dataset:
    """The same slices as the frames of one file."""
    first = single[0]
    data = Dataset()
    for keyword in ("SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored"):
        setattr(data, keyword, first[keyword].value)
    data.HighBit, data.PixelRepresentation = first.HighBit, first.PixelRepresentation
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = EnhancedMRImageStorage, "1.2.7.1", "MR"
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2", "1.2.7"
    data.NumberOfFrames = len(single)
    data.SharedFunctionalGroupsSequence = Items([_group(first, "PixelMeasuresSequence", "PixelSpacing")])
    data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence = Items([_item(first, "ImageOrientationPatient")])
    data.PerFrameFunctionalGroupsSequence = Items(
        [_group(one, "PlanePositionSequence", "ImagePositionPatient") for one in single]
    )
    for group, one in zip(data.PerFrameFunctionalGroupsSequence, single, strict=True):
        group.PixelValueTransformationSequence = Items([_item(one, "RescaleSlope", "RescaleIntercept")])
    data.PixelData = b"".join(one.PixelData for one in single)
    return data


def _group(data: Dataset, sequence: str, *keywords: str) -> Dataset:
    group = Dataset()
    setattr(group, sequence, Items([_item(data, *keywords)]))
    return group


def _item(data: Dataset, *keywords: str) -> Dataset:
    item = Dataset()
    for keyword in keywords:
        setattr(item, keyword, data[keyword].value)
    return item
