"""What of a scan is shown: the labelled region with its surroundings, coarsened where a browser could not hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from duomod.datasets.grid import Geometry
from duomod.datasets.labels import Labels
from duomod.datasets.scan import to_array
from duomod.preprocessing.geometry import resample_image, resample_label
from duomod.report.sources.scans import label_array

#: Around the labelled box, so that organs are seen in their surroundings.
MARGIN_MM = 25.0


@dataclass(frozen=True)
class Frame:
    """The part of a case that is shown, on the grid on which it is shown.

    Attributes:
        scan: In RAS.
        maps: Label maps on the same grid.
        affine: Voxel index (x, y, z, 1) to mm in RAS, three rows.
        notes: Sentences about what was cut off, coarsened or tilted.
    """

    scan: sitk.Image
    maps: tuple[sitk.Image, ...]
    affine: list[list[float]]
    notes: tuple[str, ...]


def framed(scan: sitk.Image, maps: Sequence[sitk.Image], max_voxels: int) -> Frame:
    """Cut a scan and its label maps to what is labelled and :data:`MARGIN_MM` around it, at ``max_voxels`` at most."""
    grid = Geometry.of(scan)
    box = _labelled_box([label_array(one) for one in maps], grid)
    spacing = _coarser(grid.spacing, box, max_voxels)
    shown, shown_maps = _cut(scan, box), [_cut(one, box) for one in maps]
    notes = []
    if box != _whole(grid):
        notes.append(f"Cut to the labelled region and {MARGIN_MM:g} mm around it.")
    if spacing != grid.spacing:
        fine, coarse = (" × ".join(f"{value:.3g}" for value in values) for values in (grid.spacing, spacing))
        notes.append(
            f"Shown with voxels of {coarse} mm; the scan has {fine} mm. All numbers come from the scan's grid."
        )
        shown = resample_image(shown, spacing, outside=float(to_array(shown).min()))
        shown_maps = [resample_label(one, spacing) for one in shown_maps]
    affine, tilt = _world(Geometry.of(shown))
    if tilt > 1:
        notes.append(f"The scan is tilted by {tilt:.0f}° against the body's axes; the planes are the scan's own.")
    return Frame(shown, tuple(shown_maps), affine, tuple(notes))


def _whole(grid: Geometry) -> list[tuple[int, int]]:
    return [(0, size) for size in grid.size]


def _labelled_box(maps: Sequence[Labels], grid: Geometry) -> list[tuple[int, int]]:
    """First and last + 1 index to show per axis, in x, y, z; all where nothing is labelled."""
    found = np.zeros(grid.shape, dtype=bool)
    for one in maps:
        found |= one > 0
    if not found.any():
        return _whole(grid)
    box = []
    for axis, size, spacing in zip((2, 1, 0), grid.size, grid.spacing, strict=True):
        where = np.flatnonzero(found.any(axis=tuple(a for a in range(3) if a != axis)))
        margin = int(np.ceil(MARGIN_MM / spacing))
        box.append((max(0, int(where[0]) - margin), min(size, int(where[-1]) + 1 + margin)))
    return box


def _coarser(
    spacing: tuple[float, float, float], box: Sequence[tuple[int, int]], max_voxels: int
) -> tuple[float, float, float]:
    """Raise the finest spacings to a common value until the box has few enough voxels."""
    extent = [(stop - start) * mm for (start, stop), mm in zip(box, spacing, strict=True)]

    def voxels(finest: float) -> int:
        return int(np.prod([max(1, round(e / max(mm, finest))) for e, mm in zip(extent, spacing, strict=True)]))

    low, high = min(spacing), max(extent)
    if voxels(low) <= max_voxels:
        return spacing
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if voxels(middle) <= max_voxels else (middle, high)
    x, y, z = (max(mm, high) for mm in spacing)
    return x, y, z


def _cut(image: sitk.Image, box: Sequence[tuple[int, int]]) -> sitk.Image:
    return sitk.RegionOfInterest(image, [stop - start for start, stop in box], [start for start, _ in box])


def _world(grid: Geometry) -> tuple[list[list[float]], float]:
    """Voxel index (x, y, z, 1) to mm in RAS, three rows; and the largest angle to the body's axes in degrees."""
    direction = np.asarray(grid.direction).reshape(3, 3)
    rows = np.column_stack([direction @ np.diag(grid.spacing), grid.origin])
    rows[:2] *= -1  # ITK's world is LPS
    cosines = np.abs(np.diag(direction)).clip(0, 1)
    return [[round(float(v), 6) for v in row] for row in rows], float(np.degrees(np.arccos(cosines.min())))
