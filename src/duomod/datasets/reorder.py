"""Two grids over the same voxels, stored in another order: axes exchanged or run through from the other end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from duomod.datasets.grid import Geometry

_NAMES = "xyz"
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class Reordering:
    """How to store an array anew, without interpolation.

    Attributes:
        order: For each new axis x, y, z the old axis (0, 1 or 2) that becomes it.
        flipped: For each new axis whether it runs the other way.
    """

    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    def of(self, voxels: NDArray[Number]) -> NDArray[Number]:
        """Return an array (D, H, W) in the new order."""
        steps = tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)
        return np.ascontiguousarray(voxels.T.transpose(self.order)[steps].T)

    def of_grid(self, grid: Geometry) -> Geometry:
        """Return the grid of the array in the new order: each voxel stays where it is in the world."""
        turned = [-1.0 if flip else 1.0 for flip in self.flipped]
        direction = np.asarray(grid.direction).reshape(3, 3)[:, self.order] * turned
        last = [grid.size[axis] - 1 if flip else 0 for axis, flip in zip(self.order, self.flipped, strict=True)]
        origin = np.asarray(grid.origin) + grid.matrix[:, self.order] @ last
        return Geometry(
            size=tuple(grid.size[axis] for axis in self.order),
            spacing=tuple(grid.spacing[axis] for axis in self.order),
            origin=tuple(origin.tolist()),
            direction=tuple(direction.ravel().tolist()),
        )

    def __str__(self) -> str:
        moved = [f"{_NAMES[old]} stored as {_NAMES[new]}" for new, old in enumerate(self.order) if old != new]
        flips = [f"{_NAMES[new]} from the other end" for new, flip in enumerate(self.flipped) if flip]
        return ", ".join(moved + flips)


def reordering(source: Geometry, target: Geometry) -> Reordering | None:
    """How arrays on one grid are stored on another that covers exactly the same voxels; None where it does not.

    Two grids cover the same voxels when the reordered one has no difference to the other, see
    :meth:`Geometry.differences`.
    """
    # Column j: how many voxels of each target axis one step along the source's axis j goes.
    steps = np.rint(np.linalg.solve(target.matrix, source.matrix))
    whole = np.abs(steps)
    if not (whole.sum(axis=0) == 1).all() or not (whole.sum(axis=1) == 1).all():
        return None
    x, y, z = whole.argmax(axis=1).tolist()
    flips = steps.sum(axis=1) < 0
    found = Reordering((x, y, z), (bool(flips[0]), bool(flips[1]), bool(flips[2])))
    return None if found.of_grid(source).differences(target) else found
