"""Label maps: what their values may be, and reading one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from duomod.datasets.grid import Geometry
from duomod.datasets.scan import read_image, to_array
from duomod.errors import InputError

Labels = NDArray[np.uint8]

#: Label maps are stored as uint8.
MOST_CLASSES = 256

_NO_MERGES: Mapping[int, int] = MappingProxyType({})


def value_problems(
    voxels: NDArray[np.generic], num_classes: int | None = None, merges: Mapping[int, int] = _NO_MERGES
) -> list[str]:
    """Say what is wrong with the values of a label map.

    Args:
        voxels: (D, H, W), of any number type.
        num_classes: Background included; None: as many as can be stored.
        merges: Raw label value -> class index; these values are right, too.
    """
    # Slice by slice: the temporary arrays of a whole CT would take more memory than the scan.
    if voxels.dtype.kind == "f":
        fractional = sum(int(np.count_nonzero((plane != np.rint(plane)) | ~np.isfinite(plane))) for plane in voxels)
        if fractional:
            return [
                f"{fractional} voxel(s) are not whole numbers (resampled linearly, or an image?);"
                " a label map holds class numbers"
            ]
    limit = num_classes or MOST_CLASSES
    if voxels.min() >= 0 and voxels.max() < limit:
        return []
    values: set[int] = set()
    for plane in voxels:
        values.update(int(v) for v in np.unique(plane[(plane < 0) | (plane >= limit)]))
    wrong = sorted(values - set(merges))
    if not wrong:
        return []
    shown = ", ".join(map(str, wrong[:10])) + (f", ... ({len(wrong)} values)" if len(wrong) > 10 else "")
    return [
        f"unknown label value(s) {shown} outside 0..{limit - 1} (num_classes is {limit});"
        " correct the label, the number of classes, or label_merges in the data set description"
    ]


def merged(labels: NDArray[np.generic], merges: Mapping[int, int]) -> Labels:
    """Return a label map (D, H, W) with raw values replaced by the classes they belong to, as uint8."""
    result = labels.copy() if merges else labels
    for value, target in merges.items():
        result[labels == value] = target
    return result.astype(np.uint8)


def read_labels(
    path: Path, num_classes: int | None = None, merges: Mapping[int, int] = _NO_MERGES
) -> tuple[Labels, Geometry]:
    """Read a label map.

    Args:
        path: A file that :func:`duomod.datasets.scan.read_image` reads.
        num_classes: Background included; None: as many as can be stored.
        merges: Raw label value -> class index, applied to what is read.

    Returns:
        (D, H, W) uint8, and its grid.

    Raises:
        InputError: unreadable, or a value that is no class: negative, not whole, or too large.
    """
    image: sitk.Image = read_image(path)
    voxels = to_array(image)
    problems = value_problems(voxels, num_classes, merges)
    if problems:
        raise InputError([f"{path}: {text}" for text in problems])
    return merged(voxels, merges), Geometry.of(image)
