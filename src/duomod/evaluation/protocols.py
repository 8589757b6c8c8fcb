"""Published evaluation protocols, to compare with old tables only. Their numbers never carry the usual column names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from duomod.errors import InputError
from duomod.evaluation.metrics import ASD_VARIANTS, METRICS, Metric
from duomod.evaluation.policy import get_policy
from duomod.evaluation.scoring import ClassScores, score_classes

Labels = npt.NDArray[np.uint8]

#: The grid on which DHC (Wang and Li, NeurIPS 2023) compares: z, y, x in voxels.
DHC_GRID = (72, 144, 144)

_DHC_METRICS: dict[str, Metric] = {
    "dice": replace(
        METRICS["dice"],
        column="DHCDice",
        title="DHCDice (%)",
        meaning="DHC protocol: Dice on the 72x144x144 voxel grid; an organ in neither mask counts 1 of 100",
    ),
    "asd": replace(
        METRICS["asd"],
        column="DHCASDVoxels",
        title="DHCASDVoxels (voxels)",
        meaning="DHC protocol: mean distance from the predicted to the true surface on the 72x144x144 grid in VOXELS"
        " (medpy's asd without spacing); 128 for an organ in one mask only, 0 for one in neither",
    ),
}


def dhc_metrics(names: Sequence[str]) -> list[Metric]:
    """Return DHC's metrics; it has ``dice`` and ``asd`` only.

    Raises:
        InputError: another metric was asked for.
    """
    wrong = [name for name in names if name not in _DHC_METRICS]
    if wrong or not names:
        raise InputError(
            f"protocol dhc has the metrics dice and asd only; leave out: {', '.join(wrong) or '(none given)'}"
        )
    return [_DHC_METRICS[name] for name in dict.fromkeys(names)]


def resize_nearest(labels: Labels, shape: tuple[int, int, int]) -> Labels:
    """Resize a label map (D, H, W) as torch's ``interpolate(mode="nearest")`` does: index floor(i * old / new)."""
    index = []
    for old, new in zip(labels.shape, shape, strict=True):
        # torch multiplies in single precision; double precision picks another voxel for some sizes.
        picked = np.floor(np.arange(new, dtype=np.float32) * (np.float32(old) / np.float32(new))).astype(np.int64)
        index.append(np.minimum(picked, old - 1))
    return np.ascontiguousarray(labels[np.ix_(*index)])


def score_dhc(prediction: Labels, truth: Labels, num_classes: int, metrics: Sequence[Metric]) -> list[ClassScores]:
    """Score a pair by DHC's protocol. Volumes are given in thousands of voxels, since the grid has no millimetres."""
    inner = {"DHCDice": METRICS["dice"], "DHCASDVoxels": ASD_VARIANTS["one_way"]}
    scores = score_classes(
        resize_nearest(prediction, DHC_GRID),
        resize_nearest(truth, DHC_GRID),
        (1.0, 1.0, 1.0),
        num_classes,
        [inner[metric.column] for metric in metrics],
        get_policy("dhc"),
        [1.0] * (num_classes - 1),
    )
    return [
        replace(score, values={metric.column: score.values[inner[metric.column].column] for metric in metrics})
        for score in scores
    ]
