"""Overlaps of two masks, from three voxel counts: Dice, intersection over union, precision, recall."""

from __future__ import annotations

from duomod.evaluation.metrics.base import Measure, overlap

MEASURES = (
    Measure(
        overlap("dice", "Dice", "Dice coefficient: 2 |P and T| / (|P| + |T|)"),
        lambda pair: 2 * pair.common / (pair.predicted + pair.true),
    ),
    Measure(
        overlap("iou", "IoU", "intersection over union: |P and T| / |P or T|"),
        lambda pair: pair.common / (pair.predicted + pair.true - pair.common),
    ),
    Measure(
        overlap("precision", "Precision", "share of predicted voxels that are true: |P and T| / |P|"),
        lambda pair: pair.common / pair.predicted,
    ),
    Measure(
        overlap("recall", "Recall", "share of true voxels that are predicted: |P and T| / |T|"),
        lambda pair: pair.common / pair.true,
    ),
)
