"""Hausdorff distances: how far the worst part of a surface, or its worst twentieth, is off."""

from __future__ import annotations

import numpy as np

from duomod.evaluation.metrics.base import Measure, distance
from duomod.evaluation.metrics.surfaces import SurfaceDistances


def hausdorff(distances: SurfaceDistances, percentile: float = 100.0) -> float:
    """Larger of the two directed percentiles (0 to 100, linear interpolation)."""
    directed = (distances.pred_to_truth, distances.truth_to_pred)
    if percentile == 100.0:
        return float(max(one.max() for one in directed))
    return float(max(np.percentile(one, percentile) for one in directed))


MEASURES = (
    Measure(
        distance("hd95", "HD95", "larger of the two directed 95th percentiles of the surface distances, in mm"),
        lambda pair: hausdorff(pair.distances, 95.0),
    ),
    Measure(
        distance("hd", "HD", "Hausdorff distance: largest surface distance in mm"),
        lambda pair: hausdorff(pair.distances),
    ),
)
