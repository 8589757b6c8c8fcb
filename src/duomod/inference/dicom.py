"""Scans that come as a DICOM series: one folder of slices per scan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from duomod.datasets.spec import Modality
from duomod.errors import InputError

_MODALITY, _ORIENTATION, _POSITION = "0008|0060", "0020|0037", "0020|0032"

#: Largest difference between slice distances, as a share of their median, that is taken for rounding.
_UNEVEN = 0.01

#: Largest sine of the angle between the stacking direction and the slices' normal (gantry tilt).
_TILT = 1e-3


@dataclass(frozen=True)
class Series:
    """A checked series: its files in spatial order, and what its headers call it."""

    folder: Path
    files: tuple[str, ...]
    modality: Modality | None

    @property
    def case_id(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name


def find_series(folder: Path) -> tuple[list[Series], list[str]]:
    """Look for DICOM series: in the folder itself, or else one in each of its sub-folders.

    Only headers are read.

    Returns:
        The series that can be used, and what is wrong with the others; both empty where there is no DICOM file.
    """
    here = _series_ids(folder)
    folders = [folder] if here else sorted(path for path in folder.iterdir() if path.is_dir())
    found: list[Series] = []
    problems: list[str] = []
    for candidate in folders:
        ids = here if candidate == folder else _series_ids(candidate)
        if not ids:
            continue
        try:
            found.append(_check(candidate, ids))
        except InputError as error:
            problems += error.problems
    return found, problems


def read_series(series: Series) -> sitk.Image:
    """Read a series as a 3D volume (HU for CT).

    Raises:
        InputError: a slice cannot be read.
    """
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(series.files)
    try:
        return reader.Execute()
    except RuntimeError as error:
        detail = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "unknown reason")
        raise InputError(f"{series.folder}: the DICOM series cannot be read ({detail}); copy it again") from None


def _series_ids(folder: Path) -> tuple[str, ...]:
    return cast(tuple[str, ...], sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)))


def _check(folder: Path, ids: tuple[str, ...]) -> Series:
    """Order the slices and make sure that they form one regular grid.

    Raises:
        InputError: several series, slices of several orientations, missing slices, or a tilted gantry.
    """
    if len(ids) > 1:
        raise InputError(f"{folder}: holds {len(ids)} DICOM series; put each in a folder of its own")
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), ids[0])
    if len(files) < 2:
        raise InputError(f"{folder}: only {len(files)} DICOM slice; a scan needs at least 2")
    tags = [_tags(path) for path in files]
    try:
        orientation = np.array([_numbers(tag[_ORIENTATION], 6) for tag in tags])
        position_mm = np.array([_numbers(tag[_POSITION], 3) for tag in tags])
    except ValueError:
        raise InputError(
            f"{folder}: slices without position or orientation; export the series as enhanced or plain CT/MR slices"
        ) from None
    if np.ptp(orientation, axis=0).max() > 1e-3:
        raise InputError(f"{folder}: slices of different orientation (a localizer among them?); keep one stack only")
    normal = np.cross(orientation[0, :3], orientation[0, 3:])
    along_mm = position_mm @ normal
    # GDCM sorts by position; sorting here too makes the check independent of that.
    order = np.argsort(along_mm, kind="stable")
    steps_mm = np.diff(along_mm[order])
    usual_mm = float(np.median(steps_mm))
    twice = int(np.count_nonzero(steps_mm < 1e-3))
    if twice:
        raise InputError(f"{folder}: {twice} slice(s) lie where another one lies; keep one stack only")
    if np.abs(steps_mm - usual_mm).max() > max(_UNEVEN * usual_mm, 1e-3):
        where = int(np.abs(steps_mm - usual_mm).argmax())
        raise InputError(
            f"{folder}: slices are missing or unevenly spaced ({usual_mm:g} mm apart as a rule, but"
            f" {steps_mm[where]:g} mm between slices {where + 1} and {where + 2} of {len(files)});"
            " copy the series again, or resample it"
        )
    stack_mm = position_mm[order[-1]] - position_mm[order[0]]
    if np.linalg.norm(np.cross(stack_mm, normal)) > _TILT * np.linalg.norm(stack_mm):
        raise InputError(f"{folder}: the gantry was tilted (slices are sheared); correct the tilt and export it again")
    kinds = {tag[_MODALITY] for tag in tags}
    modality = cast(Modality, kinds.pop()) if kinds in ({"CT"}, {"MR"}) else None
    return Series(folder, tuple(files[i] for i in order), modality)


def _tags(path: str) -> dict[str, str]:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise InputError(f"{path}: damaged DICOM file; copy it again") from None
    wanted = (_MODALITY, _ORIENTATION, _POSITION)
    return {key: reader.GetMetaData(key).strip() if reader.HasMetaDataKey(key) else "" for key in wanted}


def _numbers(text: str, count: int) -> NDArray[np.float64]:
    """Parse DICOM's ``a\\b\\c``.

    Raises:
        ValueError: other than ``count`` numbers.
    """
    values = np.array([float(part) for part in text.split("\\")])
    if len(values) != count:
        raise ValueError(text)
    return values
