"""Voxels of a checked series, in the values that each slice's own header gives them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom import dcmread

from duomod.datasets.dicom.codec import stored_numbers
from duomod.datasets.dicom.header import DAMAGED, Unusable, quiet, said_as
from duomod.datasets.dicom.planes import Plane
from duomod.datasets.dicom.series import Series
from duomod.datasets.dicom.stack import sentences
from duomod.errors import InputError

Values = NDArray[Any]


@quiet()
def read_series(series: Series) -> sitk.Image:
    """Read a series as a 3D volume (HU for CT).

    Each slice's own RescaleSlope and RescaleIntercept are applied, exactly: the volume is of the smallest of int16,
    int32 and float64 that holds all values.

    Raises:
        InputError: lists the slices that cannot be read, by what is wrong.
    """
    slices: list[Values | None] = [None] * len(series.planes)
    places: dict[Path, list[int]] = defaultdict(list)
    for place, plane in enumerate(series.planes):
        places[plane.path].append(place)
    wrong: list[tuple[Path, Unusable]] = []
    for path, mine in places.items():
        try:
            frames = _frames(path)
            for place in mine:
                slices[place] = _values(frames, series.planes[place], series)
        except Unusable as reason:
            wrong.append((path, reason))
    if wrong:
        raise InputError(sentences(series.folder, wrong))
    return series.geometry.image_of(np.stack([one for one in slices if one is not None]))


def _frames(path: Path) -> Values:
    with said_as(*DAMAGED):
        data = dcmread(path, force=True)
    return stored_numbers(data)


def _values(frames: Values, plane: Plane, series: Series) -> Values:
    """One slice in the smallest type that holds its values."""
    if plane.frame >= len(frames) or frames.shape[1:] != series.geometry.shape[1:]:
        raise Unusable("a file that changed while it was read", "run the command again")
    array: Values = frames[plane.frame]
    if plane.rescale is not None:
        slope, intercept = plane.rescale
        if array.dtype.kind != "f" and slope == int(slope) and intercept == int(intercept) and abs(slope) < 2**16:
            array = array.astype(np.int64) * int(slope) + int(intercept)
        else:
            array = array.astype(np.float64) * slope + intercept
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise Unusable("voxels that are NaN or infinite", "repair or remove this series")
        return array
    low, high = int(array.min()), int(array.max())
    fits = [kind for kind in ("i2", "i4") if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max]
    return np.asarray(array, dtype=[*fits, "f8"][0])
