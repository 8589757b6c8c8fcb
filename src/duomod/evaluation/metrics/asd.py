"""Average surface distances. "ASD" has no single meaning: only the pooled one fills columns named ASD.

The average symmetric surface distance pools the distances of both surfaces: (sum over P + sum over T) / (|P| + |T|).
"""

from __future__ import annotations

from duomod.evaluation.metrics.base import Measure, Pair, distance
from duomod.evaluation.metrics.surfaces import SurfaceDistances

_ONE_WAY = "mean distance in mm from the predicted surface to the true surface"


def assd(distances: SurfaceDistances) -> float:
    """Mean over both surfaces together."""
    return float(distances.pred_to_truth.sum() + distances.truth_to_pred.sum()) / distances.count


def mean_of_means(distances: SurfaceDistances) -> float:
    """Mean of the two directed means."""
    return (float(distances.pred_to_truth.mean()) + float(distances.truth_to_pred.mean())) / 2


def one_way(pair: Pair) -> float:
    """Mean distance from the predicted to the true surface."""
    return float(pair.distances.pred_to_truth.mean())


MEASURES = (
    Measure(
        distance(
            "asd", "ASD", "average symmetric surface distance in mm: mean over the voxels of both surfaces together"
        ),
        lambda pair: assd(pair.distances),
        asd_variant="assd",
    ),
    Measure(
        distance(
            "asd",
            "ASSDMeanOfMeans",
            "average symmetric surface distance in mm as medpy has it: mean of the two directed means",
        ),
        lambda pair: mean_of_means(pair.distances),
        asd_variant="assd_mean_of_means",
    ),
    Measure(distance("asd", "ASDOneWay", _ONE_WAY), one_way, asd_variant="one_way"),
    Measure(distance("asd_one_way", "ASDOneWay", _ONE_WAY), one_way),
)
