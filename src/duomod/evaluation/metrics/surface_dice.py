"""Normalised surface Dice: how much of both surfaces is right within a tolerance."""

from __future__ import annotations

import numpy as np

from duomod.evaluation.metrics.base import Measure, Pair, overlap


def nsd(pair: Pair) -> float:
    """Share (0 to 1) of both surfaces that lies within the tolerance of the other one."""
    # Distances come from single precision maps: without the slack, 3 * 0.7 mm would miss a tolerance of 2.1 mm.
    limit = pair.tolerance_mm * (1 + 1e-6) + 1e-9
    found = pair.distances
    within = np.count_nonzero(found.pred_to_truth <= limit) + np.count_nonzero(found.truth_to_pred <= limit)
    return within / found.count


MEASURES = (
    Measure(
        overlap(
            "nsd",
            "NSD",
            "normalised surface Dice: share of the voxels of both surfaces within the tolerance of the other one",
        ),
        nsd,
    ),
)
