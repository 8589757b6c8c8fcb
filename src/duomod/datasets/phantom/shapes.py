"""What the built-in phantom is drawn with: shapes as signed distances, smooth random fields, and a canvas of voxels.

Everything here is in patient coordinates in mm: x towards the patient's left, y towards the back, z towards the head
(LPS, as in DICOM). Distances are negative inside a shape. They are approximations, right at the surface and in sign
everywhere, which is all that painting a boundary needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.uint8]
Vector = tuple[float, float, float]
Slices = tuple[slice, slice, slice]


class Points(NamedTuple):
    """Patient coordinates of voxels, mm; three arrays that broadcast to one shape."""

    x: Array
    y: Array
    z: Array

    def moved(self, rotation: NDArray[np.float64], pivot: NDArray[np.float64]) -> Points:
        """Return ``rotation @ (p - pivot)`` for every point."""
        x, y, z = (axis - np.float32(shift) for axis, shift in zip(self, pivot, strict=True))
        rows = rotation.astype(np.float32)
        return Points(*(row[0] * x + row[1] * y + row[2] * z for row in rows))


def rotation_matrix(degrees: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation about x, then y, then z by these angles."""
    a, b, c = np.radians(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x, dtype=np.float64)


class Shape(Protocol):
    """A solid that knows its box and its signed distance."""

    def box(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the lowest and highest x, y, z, mm."""

    def distance(self, points: Points) -> Array:
        """Return the signed distance of every point, mm, negative inside."""


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid: centre and semi-axes in mm, turned by ``tilt`` degrees about x, y and z."""

    centre: Vector
    semi_axes: Vector
    tilt: Vector = (0.0, 0.0, 0.0)

    def box(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """See `Shape`."""
        reach = np.sqrt((rotation_matrix(self.tilt) ** 2) @ np.square(self.semi_axes))
        return np.subtract(self.centre, reach), np.add(self.centre, reach)

    def distance(self, points: Points) -> Array:
        """See `Shape`. Uses k (k - 1) / |grad k|, with k the norm in units of the semi-axes."""
        local = points.moved(rotation_matrix(self.tilt).T, np.asarray(self.centre))
        scaled = [axis / np.float32(radius) for axis, radius in zip(local, self.semi_axes, strict=True)]
        norm = np.sqrt(sum(np.square(axis) for axis in scaled)) + np.float32(1e-6)
        steepness = np.sqrt(
            sum(np.square(axis / np.float32(radius)) for axis, radius in zip(scaled, self.semi_axes, strict=True))
        )
        return np.asarray(norm * (norm - 1) / (steepness + np.float32(1e-6)), dtype=np.float32)


@dataclass(frozen=True)
class Tube:
    """A tube along a smooth curve through ``path``, mm; ``radii`` one a point, or one for all."""

    path: tuple[Vector, ...]
    radii: tuple[float, ...]

    def spheres(self) -> NDArray[np.float64]:
        """Return (N, 4): points of the curve and their radii, close enough together to join straight."""
        path = np.asarray(self.path, dtype=np.float64)
        radii = np.broadcast_to(np.asarray(self.radii, dtype=np.float64), len(path))
        steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
        along = np.concatenate([[0.0], np.cumsum(steps)])
        count = max(len(path), round(along[-1] / 14.0) + 1)
        curve = CubicSpline(along, np.column_stack([path, radii]), bc_type="natural")(np.linspace(0, along[-1], count))
        curve[:, 3] = np.clip(curve[:, 3], radii.min(), radii.max())
        return np.asarray(curve, dtype=np.float64)

    def box(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """See `Shape`."""
        spheres = self.spheres()
        radii = spheres[:, 3:]
        return (spheres[:, :3] - radii).min(0), (spheres[:, :3] + radii).max(0)

    def distance(self, points: Points) -> Array:
        """See `Shape`: the least distance to the capsules that make up the curve."""
        spheres = self.spheres()
        nearest = np.full(points.x.shape, 1e3, dtype=np.float32)
        for start, end in pairwise(spheres):
            chord = (end - start).astype(np.float32)
            x, y, z = (axis - np.float32(origin) for axis, origin in zip(points, start[:3], strict=True))
            length = max(float(chord[:3] @ chord[:3]), 1e-6)
            share = np.clip((x * chord[0] + y * chord[1] + z * chord[2]) / np.float32(length), 0, 1)
            away = np.square(x - share * chord[0]) + np.square(y - share * chord[1]) + np.square(z - share * chord[2])
            np.minimum(nearest, np.sqrt(away) - (np.float32(start[3]) + share * chord[3]), out=nearest)
        return nearest


def smooth_field(
    rng: np.random.Generator, axes: Sequence[NDArray[np.float64]], length_mm: float, reach_mm: float = 420.0
) -> Array:
    """Draw a smooth random field of mean 0 and standard deviation 1 (cubic B-splines over white noise).

    The noise belongs to the world, not to the grid: the same generator state gives the same field at the same place,
    whatever the voxels.

    Args:
        rng: Source of the noise; the number of values drawn depends on ``length_mm`` and ``reach_mm`` only.
        axes: Voxel positions along z, y and x, mm.
        length_mm: Distance of the knots.
        reach_mm: The world spans ``-reach_mm .. reach_mm`` on each axis.

    Returns:
        float32 (D, H, W).
    """
    knots = int(np.ceil(2 * reach_mm / length_mm)) + 4
    values = rng.standard_normal((knots, knots, knots), dtype=np.float32)
    for axis in axes:
        place = (np.asarray(axis, dtype=np.float64) + reach_mm) / length_mm + 1.5
        away = np.abs(place[:, None] - np.arange(knots)[None, :])
        near, far = 2 / 3 - away**2 + away**3 / 2, np.clip(2 - away, 0, None) ** 3 / 6
        weights = np.where(away < 1, near, far)
        weights /= np.sqrt(np.square(weights).sum(1, keepdims=True))
        # Contracting the first axis and appending the result last turns (z, y, x) back into (z, y, x) after three.
        values = np.tensordot(values, weights.astype(np.float32), axes=([0], [1]))
    return np.ascontiguousarray(values)


@dataclass
class Canvas:
    """Voxels being painted, in the patient's own, bent coordinates.

    ``points`` are template coordinates: where each voxel lies in the average body. ``size`` is the patient's size
    relative to it. ``surface`` roughens the shapes; ``edge_mm`` is the width over which a boundary voxel mixes.
    """

    axes: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
    points: Points
    size: NDArray[np.float64]
    surface: Array
    edge_mm: float
    margin_mm: float = 28.0
    image: Array = field(init=False)
    labels: Labels = field(init=False)

    def __post_init__(self) -> None:
        self.image = np.full(self.surface.shape, -1000, dtype=np.float32)
        self.labels = np.zeros(self.surface.shape, dtype=np.uint8)

    @property
    def everywhere(self) -> Slices:
        """The whole grid."""
        return (slice(None), slice(None), slice(None))

    def region(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> Slices:
        """Return the part of the grid that can hold a template box (x, y, z; mm); possibly empty."""
        found = []
        for axis, index in zip(self.axes, (2, 1, 0), strict=True):
            first, last = low[index] * self.size[index], high[index] * self.size[index]
            bounds = np.searchsorted(axis, [first - self.margin_mm, last + self.margin_mm])
            found.append(slice(int(bounds[0]), int(bounds[1])))
        return (found[0], found[1], found[2])

    def at(self, where: Slices) -> Points:
        """Return the template coordinates of a part of the grid."""
        return Points(*(axis[where] for axis in self.points))

    def paint(self, where: Slices, distance: Array, hu: Array | float, label: int | None = None) -> None:
        """Lay a tissue over a part of the grid.

        Args:
            where: The part.
            distance: Signed distance to the tissue's surface there, mm.
            hu: Its CT number, one for all or one a voxel.
            label: Class index for voxels whose centre is inside; None leaves the labels as they are.
        """
        share = np.clip(0.5 - distance / np.float32(self.edge_mm), 0, 1).astype(np.float32)
        part = self.image[where]
        part += share * (np.asarray(hu, dtype=np.float32) - part)
        if label is not None:
            self.labels[where][distance < 0] = label
