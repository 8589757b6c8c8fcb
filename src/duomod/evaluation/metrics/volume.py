"""Differences of volumes."""

from __future__ import annotations

from duomod.evaluation.metrics.base import Measure, Metric

MEASURES = (
    Measure(
        Metric(
            "volume_difference",
            "VolumeDifference",
            "VolumeDifference (ml)",
            "volume",
            None,
            1.0,
            2,
            "predicted minus true volume in ml",
        ),
        lambda pair: (pair.predicted - pair.true) * pair.voxel_ml,
    ),
)
