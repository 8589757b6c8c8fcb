"""Where a moved patch came from: linear maps about the patch's centre, combined, inverted and applied to voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # settings, and so every --help, are read without torch and numpy
    import numpy as np
    from torch import Tensor

Matrix = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
Pairs = tuple[tuple[int, int], ...]


def as_matrix(rows: np.ndarray) -> Matrix:
    """A 3x3 array as plain numbers, which can be compared, printed and sent between processes."""
    (a, b, c), (d, e, f), (g, h, i) = rows.tolist()
    return (a, b, c), (d, e, f), (g, h, i)


@dataclass(frozen=True)
class Geometry:
    """How voxels of a moved patch are found in the patch it was made from.

    Attributes:
        matrix: Takes a place in the moved patch to the place it shows. Both are in voxels from the patch's centre, axes
            x y z.
        swapped: Class indices that changed places: right and left organs, after a mirroring that keeps their names.
    """

    matrix: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    swapped: Pairs = ()

    def then(self, following: Geometry) -> Geometry:
        """This movement, and another one after it."""
        import numpy as np

        matrix = np.array(self.matrix) @ np.array(following.matrix)
        return Geometry(as_matrix(matrix), tuple(sorted({*self.swapped} ^ {*following.swapped})))

    def inverse(self) -> Geometry:
        """The movement that undoes this one."""
        import numpy as np

        return Geometry(as_matrix(np.linalg.inv(self.matrix)), self.swapped)

    def move(self, values: Tensor, nearest: bool = False) -> Tensor:
        """Move the voxels of a patch; flips are exact, all else is interpolated. The edge is continued outwards.

        Args:
            values: (C, D, H, W); floats, or anything if ``nearest``.
            nearest: Take the nearest voxel instead of a linear mixture.
        """
        diagonal = [self.matrix[axis][axis] for axis in range(3)]
        elsewhere = [self.matrix[i][j] for i in range(3) for j in range(3) if i != j]
        if any(elsewhere) or any(abs(sign) != 1 for sign in diagonal):
            return _resampled(values, self.matrix, nearest)
        axes = [3 - axis for axis in range(3) if diagonal[axis] < 0]
        return values.flip(axes) if axes else values

    def move_label(self, label: Tensor) -> Tensor:
        """Move a label map (D, H, W) int64; it never shows a value that it did not have, but for swapped classes."""
        moved = self.move(label[None], nearest=True)[0]
        result = moved
        for a, b in self.swapped:
            result = result.where(moved != a, b).where(moved != b, a)
        return result

    def move_scores(self, scores: Tensor) -> Tensor:
        """Move logits or probabilities (C, D, H, W), one channel per class."""
        order = list(range(len(scores)))
        for a, b in self.swapped:
            order[a], order[b] = b, a
        moved = self.move(scores)
        return moved[order] if self.swapped else moved


def _resampled(values: Tensor, matrix: Matrix, nearest: bool) -> Tensor:
    import numpy as np
    import torch
    from torch.nn import functional

    half = np.array([max((length - 1) / 2, 0.5) for length in reversed(values.shape[1:])])
    # grid_sample works in coordinates from -1 to 1 per axis; scale so that the matrix acts on voxels.
    scaled = np.array(matrix) * half[None, :] / half[:, None]
    theta = torch.from_numpy(np.concatenate([scaled, np.zeros((3, 1))], axis=1)).to(values.device, torch.float32)
    grid = functional.affine_grid(theta[None], [1, 1, *values.shape[1:]], align_corners=True)
    mode = "nearest" if nearest else "bilinear"
    moved = functional.grid_sample(values[None].float(), grid, mode=mode, padding_mode="border", align_corners=True)
    return moved[0].to(values.dtype)
