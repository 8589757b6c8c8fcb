"""Surface voxels of masks and the distances between them: what every distance metric is made from.

Conventions. A *surface voxel* belongs to the mask and has at least one of its six face neighbours outside it; what lies
beyond the image's border counts as outside (as in MONAI and medpy). Distances run between voxel centres, in mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import edt
import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
Spacing = tuple[float, float, float]


def surface(mask: BoolArray) -> BoolArray:
    """Return the surface voxels of a mask (D, H, W): those with a face neighbour outside. The border is outside."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        here, there = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
        here[1:] &= there[:-1]
        here[:-1] &= there[1:]
        here[0] = False
        here[-1] = False
    return mask ^ inner


def by_distance_map(source: BoolArray, target: BoolArray, spacing_mm: Spacing) -> FloatArray:
    """Distances from the voxels of ``source`` to the nearest voxel of ``target`` through a distance map of the box."""
    outside = np.ascontiguousarray(~target).view(np.uint8)
    squared = edt.edtsq(outside, anisotropy=spacing_mm, parallel=1)
    distances: FloatArray = np.sqrt(squared[source], dtype=np.float64)
    return distances


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances in mm between two surfaces, one value per surface voxel, in no particular order."""

    pred_to_truth: FloatArray
    truth_to_pred: FloatArray

    @property
    def count(self) -> int:
        """Number of voxels of both surfaces."""
        return self.pred_to_truth.size + self.truth_to_pred.size


#: A distance map costs about this much per voxel of the box, a nearest-point query this much per surface voxel (ns).
_MAP_COST, _QUERY_COST = 18.0, 2000.0


def surface_distances(prediction: BoolArray, truth: BoolArray, spacing_mm: Spacing) -> SurfaceDistances:
    """Return the distances between the surfaces of two masks.

    Args:
        prediction: Mask (D, H, W), not empty.
        truth: Mask of the same shape, not empty.
        spacing_mm: Voxel size along z, y, x.
    """
    pred_surface, true_surface = surface(prediction), surface(truth)
    surface_voxels = np.count_nonzero(pred_surface) + np.count_nonzero(true_surface)
    if surface_voxels * _QUERY_COST < 2 * prediction.size * _MAP_COST:
        # A few specks far from a small organ make the box huge and nearly empty; asking for the nearest of few points
        # is then many times cheaper than mapping the whole box, and gives the same distances.
        points = [np.argwhere(mask) * np.asarray(spacing_mm) for mask in (pred_surface, true_surface)]
        trees = [KDTree(cloud) for cloud in points]
        return SurfaceDistances(trees[1].query(points[0])[0], trees[0].query(points[1])[0])
    return SurfaceDistances(
        by_distance_map(pred_surface, true_surface, spacing_mm),
        by_distance_map(true_surface, pred_surface, spacing_mm),
    )
