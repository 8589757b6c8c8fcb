"""Surfaces of label maps for the 3D view: marching cubes, small enough for a browser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

#: Triangles of one class, and of all classes of one label map together.
MAX_TRIANGLES = 20_000
MAX_TRIANGLES_OF_MAP = 120_000
_SIGMA_VOXELS = 0.8
_STEPS = 65_535


@dataclass(frozen=True)
class Mesh:
    """A closed surface.

    Attributes:
        vertices: (N, 3) float32, mm in x, y, z from the centre of the first voxel of the volume.
        triangles: (M, 3) uint16, indices of vertices.
    """

    vertices: NDArray[np.float32]
    triangles: NDArray[np.uint16]

    def as_json(self, packed: Callable[[NDArray[Any]], str]) -> dict[str, Any]:
        """Vertices as steps between the box's corners (at most 1/65535 of its edge off), triangles as they are."""
        low, high = self.vertices.min(0), self.vertices.max(0)
        step = np.maximum(high - low, 1e-6) / _STEPS
        steps = np.rint((self.vertices - low) / step).clip(0, _STEPS).astype(np.uint16)
        return {
            "origin": [round(float(v), 5) for v in low],
            "step": [float(f"{v:.8g}") for v in step],
            "vertices": packed(steps),
            "triangles": packed(self.triangles),
        }


def meshes(labels: NDArray[np.uint8], spacing: tuple[float, float, float], classes: int) -> list[Mesh | None]:
    """Make the surface of every class from 1 on.

    Args:
        labels: (D, H, W).
        spacing: mm, x y z.
        classes: Number of classes, background included.

    Returns:
        One entry per class; None where the class is absent.
    """
    boxes = ndimage.find_objects(labels, max_label=max(classes - 1, 1))[: classes - 1]
    present = sum(box is not None for box in boxes)
    limit = min(MAX_TRIANGLES, MAX_TRIANGLES_OF_MAP // max(present, 1))
    return [
        None if box is None else surface(labels[box] == label, _start(box), spacing, limit)
        for label, box in enumerate(boxes, start=1)
    ]


def surface(
    mask: NDArray[np.bool_], start: tuple[int, int, int], spacing: tuple[float, float, float], limit: int
) -> Mesh:
    """Make one mask's surface, slightly smoothed, with at most ``limit`` triangles.

    Args:
        mask: (D, H, W), not empty.
        start: Index (z, y, x) of its first voxel in the volume.
        spacing: mm, x y z.
        limit: Most triangles; the mask is coarsened until they are few enough.
    """
    limit = min(limit, MAX_TRIANGLES)
    border = 3
    sharp = np.pad(mask, border).astype(np.float32)
    soft = ndimage.gaussian_filter(sharp, _SIGMA_VOXELS)
    # What is thinner than the smoothing would vanish: it stays as sharp as it is.
    field = soft if soft.max() > 0.55 and (soft > 0.5).sum() > 0.7 * mask.sum() else sharp
    mm = np.asarray(spacing[::-1], dtype=float)
    step = mm.copy()
    shrunk = field
    finest = float(mm.min())
    while True:
        vertices, triangles = _cubes(shrunk, step)
        if len(triangles) <= limit:
            break
        # The number of triangles goes with the square of the voxel size.
        finest = max(finest * 1.1, finest * float(np.sqrt(len(triangles) / limit)))
        target = np.maximum(mm, finest)
        blurred = ndimage.gaussian_filter(sharp, 0.5 * target / mm)
        shape = np.maximum(np.ceil((np.array(field.shape) - 1) * mm / target).astype(int) + 1, 3)
        step = (np.array(field.shape) - 1) * mm / (shape - 1)
        axes = [np.linspace(0, n - 1, m) for n, m in zip(field.shape, shape, strict=True)]
        shrunk = ndimage.map_coordinates(blurred, np.meshgrid(*axes, indexing="ij"), order=1)
    corner = (np.asarray(start) - border) * mm
    points = (vertices + corner)[:, ::-1].astype(np.float32)
    return Mesh(np.ascontiguousarray(points), np.ascontiguousarray(triangles.astype(np.uint16)))


def _cubes(field: NDArray[np.float32], step: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    from skimage.measure import marching_cubes

    level = min(0.5, 0.5 * float(field.max()))
    vertices, triangles, _, _ = marching_cubes(field, level, spacing=tuple(step))
    return vertices, triangles


def _start(box: tuple[slice, ...]) -> tuple[int, int, int]:
    z, y, x = (part.start for part in box)
    return z, y, x
