"""Two networks that teach each other: what CPS and its kin predict with and learn by."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class MeanLogits(nn.Module):
    """The ensemble of the two-network methods: the mean of the networks' logits."""

    def __init__(self, a: nn.Module, b: nn.Module) -> None:
        super().__init__()
        self.a, self.b = a, b

    def forward(self, x: Tensor) -> Tensor:
        mean: Tensor = (self.a(x) + self.b(x)) / 2
        return mean


def cross_pseudo_supervision(logits_a: Tensor, logits_b: Tensor, weight: Tensor | None = None) -> Tensor:
    """CE(A, argmax B) + CE(B, argmax A) over all voxels (Chen et al., CVPR 2021, eq. 1-2).

    Args:
        logits_a: (B, C, D, H, W).
        logits_b: the same of the other network.
        weight: (C,) class weights of the cross-entropy.
    """
    a, b = logits_a.float(), logits_b.float()
    return functional.cross_entropy(a, b.detach().argmax(1), weight) + functional.cross_entropy(
        b, a.detach().argmax(1), weight
    )
