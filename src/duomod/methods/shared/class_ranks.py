"""Which classes are frequent, as predictions say: what DuoMod-Net and FCC follow and scale features by."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from duomod.losses.class_weights import descending_ranks, rlm_weights

Direction = Literal["head", "foreground", "tail", "none"]


class RLM(nn.Module):
    """Running class distribution and the loss weights that follow from it (docs/methods/duomodnet.md, RLM)."""

    distribution: Tensor

    def __init__(self, initial: Tensor, floor: float, momentum: float) -> None:
        super().__init__()
        self.floor, self.momentum = floor, momentum
        self.register_buffer("distribution", initial.clone().float())

    @torch.no_grad()
    def update(self, probabilities: Tensor) -> None:
        """pi <- m pi + (1 - m) mean(p); ``probabilities``: (B, C, D, H, W)."""
        q = probabilities.mean(dim=(0, 2, 3, 4))
        self.distribution.copy_(self.momentum * self.distribution + (1 - self.momentum) * q)

    def weights(self) -> tuple[Tensor, Tensor]:
        """Cross-entropy and Dice weights, each (C,)."""
        return rlm_weights(self.distribution, self.floor)


def class_gains(distribution: Tensor, direction: Direction) -> Tensor:
    """a_c in [0, 1] from the class ranks, most frequent first (docs/methods/duomodnet.md, DAFR)."""
    classes = len(distribution)
    if direction == "none":
        return torch.zeros_like(distribution)
    if direction == "foreground":
        organs = 1 - descending_ranks(distribution[1:]).float() / max(classes - 2, 1)
        return torch.cat([organs.new_zeros(1), organs])
    ranks = descending_ranks(distribution).float() / (classes - 1)
    return ranks if direction == "tail" else 1 - ranks
