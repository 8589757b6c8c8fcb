"""The noise on a network's input that is part of a loss: passes that measure uncertainty, the input of a teacher.

Methods draw it themselves, from torch's global generator (seeded per step). What is augmentation they ask for as views.
"""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_gaussian(x: Tensor, sigma: float, clip: float) -> Tensor:
    """Return ``x`` plus clip(sigma N(0, 1), -clip, clip), the same shape."""
    return x + (sigma * torch.randn_like(x)).clamp_(-clip, clip)
