"""Numbers of a case's label maps, on the scan's full grid, and where each organ is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from duomod.datasets.labels import Labels
from duomod.evaluation.metrics.overlap import class_dice


@dataclass(frozen=True)
class LabelFacts:
    """Numbers of one label map; one entry per class, background left out.

    Attributes:
        name: ``truth``, or the prediction's name.
        ml: Volumes.
        dice: Against the truth; None where both are empty, or the whole list None without a truth.
    """

    name: str
    ml: tuple[float, ...]
    dice: tuple[float | None, ...] | None = None


def label_facts(
    truth: Labels | None, predictions: Sequence[tuple[str, Labels]], classes: int, voxel_ml: float
) -> tuple[LabelFacts | None, list[LabelFacts]]:
    """Return the facts of the truth, if there is one, and of each prediction.

    Args:
        truth: (D, H, W) class indices.
        predictions: Name and label map (D, H, W) of each.
        classes: Number of classes, background included.
        voxel_ml: A voxel's volume.
    """
    true_count = None if truth is None else _voxels(truth, classes)
    found = []
    for name, labels in predictions:
        count = _voxels(labels, classes)
        dice = None
        if truth is not None:
            of_classes = class_dice(labels, truth, classes)[1:].tolist()
            dice = tuple(None if math.isnan(value) else value for value in of_classes)
        found.append(LabelFacts(name, _millilitres(count, voxel_ml), dice))
    true_facts = None if true_count is None else LabelFacts("truth", _millilitres(true_count, voxel_ml))
    return true_facts, found


def _voxels(labels: Labels, classes: int) -> NDArray[np.int64]:
    return np.bincount(labels.ravel(), minlength=classes)[1:]


def _millilitres(count: NDArray[np.int64], voxel_ml: float) -> tuple[float, ...]:
    return tuple(float(value) * voxel_ml for value in count)


def centres(labels: Labels, classes: int) -> list[list[int] | None]:
    """Of each class the labelled voxel (x, y, z) nearest to its centre of mass: a bent organ's lies outside it."""
    found: list[list[int] | None] = []
    for label in range(1, classes):
        where = np.argwhere(labels == label)
        if not len(where):
            found.append(None)
            continue
        distance = ((where - where.mean(0)) ** 2).sum(1)
        found.append([int(v) for v in where[int(distance.argmin())][::-1]])
    return found
