"""Scores of all classes of a pair of label maps, from one look at each volume and each class's own box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from duomod.evaluation.metrics import Metric, Pair, measure
from duomod.evaluation.metrics.overlap import dice
from duomod.evaluation.metrics.surfaces import Spacing
from duomod.evaluation.mix_ups import LOW
from duomod.evaluation.policy import EmptyPolicy, OrganStatus, organ_status

Box = tuple[slice, ...]


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class in one case.

    Attributes:
        values: By metric column.
        status: What became of the organ.
        predicted_ml: Volume of the prediction in ml.
        true_ml: Volume of the truth in ml.
        voxels: Of the prediction, the truth, and both.
        lies_in: Where the Dice is low, how many of the predicted voxels are in each class 0, 1, ... of the truth.
    """

    values: dict[str, float]
    status: OrganStatus
    predicted_ml: float
    true_ml: float
    voxels: tuple[int, int, int] = (0, 0, 0)
    lies_in: tuple[int, ...] = ()


def absent_class(metrics: Sequence[Metric], policy: EmptyPolicy) -> ClassScores:
    """Return the scores of a class that is in neither mask."""
    values = {m.column: policy.both_overlap if m.kind == "overlap" else policy.both_distance for m in metrics}
    return ClassScores(values, OrganStatus.ABSENT, 0.0, 0.0)


def _value(metric: Metric, pair: Pair, policy: EmptyPolicy, diagonal_mm: float) -> float:
    if (pair.predicted and pair.true) or metric.kind == "volume":
        return measure(metric, pair)
    return 0.0 if metric.kind == "overlap" else policy.distance_when_one_is_empty(diagonal_mm)


def _union(boxes: Sequence[Box | None]) -> Box | None:
    present = [box for box in boxes if box is not None]
    if not present:
        return None
    return tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*present, strict=True))


def score_classes(
    prediction: npt.NDArray[np.uint8],
    truth: npt.NDArray[np.uint8],
    spacing_mm: Spacing,
    num_classes: int,
    metrics: Sequence[Metric],
    policy: EmptyPolicy,
    tolerances_mm: Sequence[float],
) -> list[ClassScores]:
    """Score classes 1 .. ``num_classes`` - 1 of a pair of label maps.

    Args:
        prediction: Label map (D, H, W), values below ``num_classes``.
        truth: Label map of the same shape.
        spacing_mm: Voxel size along z, y, x.
        num_classes: Number of classes, background included.
        metrics: See :func:`duomod.evaluation.metrics.select_metrics`.
        policy: What to do when a mask is empty.
        tolerances_mm: NSD tolerance of each class 1 .. ``num_classes`` - 1.
    """
    diagonal_mm = float(np.linalg.norm(np.asarray(truth.shape) * np.asarray(spacing_mm)))
    # One look at each volume finds every organ's box; all further work happens inside the boxes.
    pred_boxes = ndimage.find_objects(prediction, max_label=num_classes - 1)
    true_boxes = ndimage.find_objects(truth, max_label=num_classes - 1)
    scores = []
    for label in range(1, num_classes):
        box = _union((pred_boxes[label - 1], true_boxes[label - 1]))
        if box is None:
            scores.append(absent_class(metrics, policy))
            continue
        pred_mask, true_mask = prediction[box] == label, truth[box] == label
        predicted, true = int(np.count_nonzero(pred_mask)), int(np.count_nonzero(true_mask))
        common = int(np.count_nonzero(pred_mask & true_mask))
        pair = Pair(pred_mask, true_mask, spacing_mm, tolerances_mm[label - 1], predicted, true, common)
        values = {metric.column: _value(metric, pair, policy, diagonal_mm) for metric in metrics}
        status = organ_status(predicted, true, common)
        lies_in: tuple[int, ...] = ()
        if predicted and dice(predicted, true, common) < LOW:
            # The box holds the whole prediction, so this is all of it.
            lies_in = tuple(np.bincount(truth[box][pred_mask], minlength=num_classes).tolist())
        volumes_ml = (predicted * pair.voxel_ml, true * pair.voxel_ml)
        scores.append(ClassScores(values, status, *volumes_ml, (predicted, true, common), lies_in))
    return scores
