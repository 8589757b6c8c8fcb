"""GACE: cross-entropy over the hardest voxels, balanced between classes (docs/methods/galoss.md, Losses)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def gace(logits: Tensor, target: Tensor, percent: float, gamma: float = 0.5) -> Tensor:
    """Sum over classes of (loss of the class's kept voxels) / (n_c^(1-gamma) K^gamma).

    The K = floor(n percent / 100) voxels with the largest cross-entropy are kept; n_c of them are of class c. With
    gamma 0 every class counts alike, with gamma 1 every voxel.

    Args:
        logits: (B, C, D, H, W).
        target: (B, D, H, W) class indices.
        percent: k, in (0, 100]. With 100 nothing is sorted.
        gamma: in [0, 1].
    """
    z = logits.float()
    loss, label = functional.cross_entropy(z, target, reduction="none").flatten(), target.flatten()
    kept = int(len(loss) * percent / 100)
    if kept < len(loss):
        loss, hardest = loss.topk(kept, sorted=False)
        label = label.take(hardest)
    zeros = z.new_zeros(z.shape[1])
    sums = zeros.scatter_add(0, label, loss)
    counts = zeros.scatter_add(0, label, torch.ones_like(loss))
    scale: Tensor = (counts + 1e-10) ** (1 - gamma) * kept**gamma
    return (sums / (scale + 1e-10)).sum()
