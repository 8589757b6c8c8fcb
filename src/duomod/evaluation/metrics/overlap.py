"""Overlaps of two masks, from three voxel counts: Dice, intersection over union, precision, recall."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from duomod.evaluation.metrics.base import Measure, overlap


def dice(predicted: int, true: int, common: int) -> float:
    """Return the Dice coefficient (0 to 1) that belongs to three voxel counts; the first two may not both be 0."""
    return 2 * common / (predicted + true)


def class_dice(
    prediction: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8], num_classes: int
) -> npt.NDArray[np.float64]:
    """Return Dice per class (C,), background included; NaN where a class is in neither map.

    Args:
        prediction: Label map of any shape, values below ``num_classes``.
        truth: Label map of the same shape.
        num_classes: C.
    """
    maps = (prediction, truth, prediction[prediction == truth])
    counts = (np.bincount(one.ravel(), minlength=num_classes).tolist() for one in maps)
    return np.asarray([dice(p, t, both) if p + t else np.nan for p, t, both in zip(*counts, strict=True)])


MEASURES = (
    Measure(
        overlap("dice", "Dice", "Dice coefficient: 2 |P and T| / (|P| + |T|)"),
        lambda pair: dice(pair.predicted, pair.true, pair.common),
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
