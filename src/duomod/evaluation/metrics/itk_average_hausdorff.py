"""What SimpleITK calls the average Hausdorff distance, a volume average; for old tables only."""

from __future__ import annotations

from duomod.evaluation.metrics.base import Measure, Pair, distance
from duomod.evaluation.metrics.surfaces import by_distance_map


def itk_average_hausdorff(pair: Pair) -> float:
    """Return SimpleITK's ``GetAverageHausdorffDistance`` in mm."""
    to_truth = by_distance_map(pair.prediction, pair.truth, pair.spacing_mm)
    to_prediction = by_distance_map(pair.truth, pair.prediction, pair.spacing_mm)
    return (float(to_truth.mean()) + float(to_prediction.mean())) / 2


MEASURES = (
    Measure(
        distance(
            "asd",
            "ITKAverageHausdorff",
            "SimpleITK's GetAverageHausdorffDistance in mm: mean of the two directed averages over ALL voxels of the"
            " masks, voxels in the overlap counting 0. A volume average, not a surface distance",
        ),
        itk_average_hausdorff,
        asd_variant="itk_average_hausdorff",
    ),
)
