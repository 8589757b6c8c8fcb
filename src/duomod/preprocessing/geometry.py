"""One orientation, one spacing, and the exact way back to the scan.

Arrays are (D, H, W) = (z, y, x); SimpleITK's tuples are (x, y, z). Lengths are in mm.
"""

from __future__ import annotations

import itertools

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from duomod.datasets.grid import Geometry, Triple

ORIENTATION = "RAS"


def canonical(image: sitk.Image) -> sitk.Image:
    """Permute and flip axes so that x, y, z run to the right, front and top (RAS) as nearly as the grid allows."""
    return sitk.DICOMOrient(image, ORIENTATION)


def working_geometry(geometry: Geometry, spacing_mm: Triple) -> Geometry:
    """The grid of a scan of this geometry after :func:`resample_image`: same origin and direction."""
    size = [
        max(1, round(count * old / new))
        for count, old, new in zip(geometry.size, geometry.spacing, spacing_mm, strict=True)
    ]
    return geometry.model_copy(update={"size": tuple(size), "spacing": tuple(spacing_mm)})


def resample_image(image: sitk.Image, spacing_mm: Triple, outside: float) -> sitk.Image:
    """Resample linearly to a voxel size; what lies outside the scan becomes ``outside``. The result is float32."""
    return _resample(image, spacing_mm, sitk.sitkLinear, outside, sitk.sitkFloat32)


def resample_label(image: sitk.Image, spacing_mm: Triple) -> sitk.Image:
    """Resample a label map to a voxel size by nearest neighbour; outside is 0."""
    return _resample(image, spacing_mm, sitk.sitkNearestNeighbor, 0, image.GetPixelID())


def _resample(image: sitk.Image, spacing_mm: Triple, method: int, outside: float, pixel: int) -> sitk.Image:
    grid = working_geometry(Geometry.of(image), spacing_mm)
    return sitk.Resample(
        image, grid.size, sitk.Transform(), method, grid.origin, grid.spacing, grid.direction, outside, pixel
    )


def labels_on_grid(probabilities: NDArray[np.floating], working: Geometry, target: Geometry) -> NDArray[np.uint8]:
    """Bring class probabilities back to a scan's grid and take the most probable class there.

    Linear in physical space; beyond the working grid the nearest voxel counts. Classes are handled one after another
    with a running maximum, so that the memory needed does not grow with their number. A class can win only where its
    probability is at least 1/C, and interpolation cannot exceed what it interpolates: each class is resampled only
    around the voxels where it reaches that.

    Args:
        probabilities: (C, D, H, W) on ``working``, summing to one per voxel.
        working: The grid they are on.
        target: The grid of the result; any orientation.

    Returns:
        (D, H, W) uint8 on ``target``; ties go to the lower class.
    """
    classes = probabilities.shape[0]
    # Float32 sums are not exactly one; the margin keeps the shortcut exact.
    threshold = 1 / classes - 1e-3
    best = np.zeros(target.shape, dtype=np.float32)
    labels = np.zeros(target.shape, dtype=np.uint8)
    world_from_target = target.matrix
    for label in range(classes):
        share = np.ascontiguousarray(probabilities[label], dtype=np.float32)
        found = _box(share >= threshold)
        if found is None:
            continue
        box = _target_box(found, working, target, world_from_target)
        if box is None:
            continue
        start, size = box
        origin = tuple(world_from_target @ np.asarray(start, dtype=float) + np.asarray(target.origin))
        resampled = sitk.Resample(
            working.image_of(share),
            size,
            sitk.Transform(),
            sitk.sitkLinear,
            origin,
            target.spacing,
            target.direction,
            0.0,
            sitk.sitkFloat32,
            True,
        )
        values = sitk.GetArrayViewFromImage(resampled)
        region = tuple(slice(s, s + n) for s, n in zip(reversed(start), reversed(size), strict=True))
        better = values > best[region]
        np.copyto(best[region], values, where=better)
        np.copyto(labels[region], label, where=better)
    return labels


def _box(mask: NDArray[np.bool_]) -> list[tuple[int, int]] | None:
    """First and last index of a mask per axis, in x, y, z; None if it is empty."""
    ranges = []
    for axis in (2, 1, 0):
        others = tuple(a for a in range(3) if a != axis)
        where = np.flatnonzero(mask.any(axis=others))
        if not len(where):
            return None
        ranges.append((int(where[0]), int(where[-1])))
    return ranges


def _target_box(
    found: list[tuple[int, int]], working: Geometry, target: Geometry, world_from_target: NDArray[np.float64]
) -> tuple[list[int], list[int]] | None:
    """Start and size (x, y, z) of the part of the target grid that voxels of a box on the working grid can reach."""
    matrix = working.matrix
    ends = np.array(list(itertools.product(*((-1, n) for n in target.size))), dtype=float)
    whole = (ends @ world_from_target.T + np.asarray(target.origin) - np.asarray(working.origin)) @ np.linalg.inv(
        matrix
    ).T
    reach = []
    for axis, ((low, high), size) in enumerate(zip(found, working.size, strict=True)):
        # At the border of the working grid its voxels are continued outwards, as far as the target goes.
        first = low - 1 if low > 0 else min(-1, whole[:, axis].min())
        last = high + 1 if high < size - 1 else max(size, whole[:, axis].max())
        reach.append((first, last))
    corners = np.array(list(itertools.product(*reach)), dtype=float)
    world = corners @ matrix.T + np.asarray(working.origin)
    index = (world - np.asarray(target.origin)) @ np.linalg.inv(world_from_target).T
    start = np.maximum(np.floor(index.min(0)).astype(int), 0)
    stop = np.minimum(np.ceil(index.max(0)).astype(int) + 1, np.asarray(target.size))
    if np.any(stop <= start):
        return None
    return start.tolist(), (stop - start).tolist()
