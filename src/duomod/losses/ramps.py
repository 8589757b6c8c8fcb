"""Ramps: how a weight grows during training."""

from __future__ import annotations

import math


def sigmoid_rampup(position: float, length: float) -> float:
    """Gaussian ramp exp(-5 (1 - t)^2), t = position/length clipped to [0, 1]; 1 where ``length`` is 0.

    See docs/methods/README.md, Ramps. Source: Laine and Aila, Temporal Ensembling, ICLR 2017.
    """
    if length <= 0:
        return 1.0
    t = min(max(position, 0.0), length) / length
    return math.exp(-5.0 * (1.0 - t) ** 2)
