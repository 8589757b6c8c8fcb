"""Where a voxel grid lies in the world, and when two grids are the same.

Arrays are (D, H, W) = (z, y, x); SimpleITK's tuples are (x, y, z). Lengths are in mm.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Self

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from duomod.datasets.scan import read_header

Triple = tuple[float, float, float]

#: Two grids are the same when no voxel lies farther from its counterpart than this share of the shortest voxel edge.
#: Headers whose spacing, origin and direction are rounded to five decimals stay below it over a whole CT (512 x 512 x
#: 600 voxels of 0.7 x 0.7 x 1 mm); rounding to four decimals adds up to more there, a quarter of a voxel at worst.
SAME_WITHIN = 0.05


class Geometry(BaseModel):
    """Where a voxel grid lies in the world, in SimpleITK's convention (LPS world, mm).

    ``size`` in voxels and ``spacing`` in mm are (x, y, z); ``direction`` holds the 3x3 matrix row by row.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[int, int, int]
    spacing: Triple
    origin: Triple
    direction: tuple[float, float, float, float, float, float, float, float, float]

    @classmethod
    def of(cls, image: sitk.Image) -> Self:
        """Return the geometry of an image."""
        return cls(
            size=image.GetSize(),
            spacing=image.GetSpacing(),
            origin=image.GetOrigin(),
            direction=image.GetDirection(),
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(D, H, W)."""
        x, y, z = self.size
        return z, y, x

    @property
    def matrix(self) -> NDArray[np.float64]:
        """3x3, from voxel index (x, y, z) to world, without the origin."""
        matrix: NDArray[np.float64] = np.asarray(self.direction).reshape(3, 3) @ np.diag(self.spacing)
        return matrix

    def apply_to(self, image: sitk.Image) -> sitk.Image:
        """Give an image of the same size this geometry, exactly, and return it."""
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    def image_of(self, array: NDArray[np.generic]) -> sitk.Image:
        """Wrap an array (D, H, W) as an image with this geometry."""
        if array.shape != self.shape:
            raise ValueError(f"array of shape {array.shape} on a grid of shape {self.shape}")
        return self.apply_to(sitk.GetImageFromArray(array))

    def differences(self, other: Geometry) -> list[str]:
        """Say in words where two grids differ by more than rounding; nothing where they are the same.

        They are the same when they have the same size and no voxel's centre is farther from that of its counterpart
        than ``SAME_WITHIN`` of the shortest voxel edge of both. The farthest pair is at a corner, so the corners
        decide, and origin, spacing and direction are judged by what they do together. The order of the two does not
        matter.
        """
        found = [] if self.size == other.size else [f"size {_short(self.size)} against {_short(other.size)}"]
        limit_mm = SAME_WITHIN * min(*self.spacing, *other.spacing)
        apart_mm = self._farthest(other)
        if apart_mm <= limit_mm:
            return found
        fields = ("spacing", "origin", "direction")
        alone = {name: self._farthest(self.model_copy(update={name: getattr(other, name)})) for name in fields}
        # Two that are small enough by themselves may be too much together: then all that differ are named.
        named = [name for name in fields if alone[name] > limit_mm] or [name for name in fields if alone[name] > 0]
        found += [f"{name} {_short(getattr(self, name))} against {_short(getattr(other, name))}" for name in named]
        return [*found, f"voxels lie up to {apart_mm:.3g} mm apart"]

    def _farthest(self, other: Geometry) -> float:
        """Largest distance in mm between a voxel's centre and that of the voxel with the same index there."""
        last = np.minimum(self.size, other.size) - 1
        corners = np.array(list(itertools.product(*((0, end) for end in last))), dtype=float)
        shifts = corners @ (self.matrix - other.matrix).T + np.subtract(self.origin, other.origin)
        return float(np.linalg.norm(shifts, axis=1).max())


def read_geometry(path: Path) -> Geometry:
    """Read where a scan's grid lies, from its header alone.

    Raises:
        InputError: see :func:`duomod.datasets.scan.read_header`.
    """
    return Geometry.model_validate(read_header(path), from_attributes=True)


def _short(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
