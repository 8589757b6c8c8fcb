"""DHC: one network is weighted by how hard its classes are to learn, the other by how rare they are."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from duomod.losses.class_weights import difficulty_weights, distribution_weights, hard_dice, learning_signals
from duomod.methods.base import Batch, MethodConfig, MethodContext, MethodInfo, Progress, StepOutput
from duomod.methods.skeletons import TwoNetworks


class DHCConfig(MethodConfig):
    """Settings of DHC."""

    momentum: float = Field(0.99, ge=0, lt=1, description="of the class counts (DistDW)")
    accumulate: int = Field(50, ge=1, description="steps over which learning speed is averaged (DiffDW)")

    reference: ClassVar = {**MethodConfig.reference, "counts_from": "crops"}


class DistDW(nn.Module):
    """Distribution-aware weights: running class shares of hard predictions (docs/methods/dhc.md, DistDW)."""

    shares: Tensor

    def __init__(self, initial: Tensor, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("shares", initial.clone().float())

    @torch.no_grad()
    def update(self, predicted: Tensor) -> Tensor:
        """n <- m n + (1 - m) histogram of ``predicted`` (B, D, H, W); returns the weights (C,).

        Shares stand for counts, so that many or few labelled volumes start alike; the weights are those of counts.
        """
        k = predicted.flatten()
        found = torch.zeros_like(self.shares).scatter_add_(0, k, torch.ones_like(k, dtype=torch.float32)) / len(k)
        self.shares.mul_(self.momentum).add_(found, alpha=1 - self.momentum)
        return distribution_weights(self.shares * len(k))


class DiffDW(nn.Module):
    """Difficulty-aware weights: large where Dice falls, rises slowly or is low (docs/methods/dhc.md, DiffDW)."""

    last_dice: Tensor
    learned: Tensor
    unlearned: Tensor
    missing: Tensor

    def __init__(self, num_classes: int, accumulate: int) -> None:
        super().__init__()
        self.rate = 1 / accumulate
        self.register_buffer("last_dice", torch.full((num_classes,), 1e-8))
        self.register_buffer("learned", torch.zeros(num_classes))
        self.register_buffer("unlearned", torch.zeros(num_classes))
        self.register_buffer("missing", torch.ones(num_classes))

    @torch.no_grad()
    def update(self, predicted: Tensor, label: Tensor) -> Tensor:
        """Follow one labelled batch (label maps (B, D, H, W)); returns the weights (C,)."""
        dice = hard_dice(predicted, label, len(self.missing))
        learned, unlearned = learning_signals(dice, self.last_dice)
        for running, new in ((self.learned, learned), (self.unlearned, unlearned), (self.missing, 1 - dice)):
            running.mul_(1 - self.rate).add_(new, alpha=self.rate)
        self.last_dice.copy_(dice)
        return difficulty_weights(self.learned, self.unlearned, self.missing)


class DHC(TwoNetworks[DHCConfig]):
    """L = Lsup_a(A) + Lsup_b(B) + w(e) [CE_a(A, argmax B) + CE_b(B, argmax A)].

    CPS with DiffDW weights a in all losses of A, large for classes whose Dice falls, rises slowly or is low; and DistDW
    weights b_c = C ln(max n / n_c) / max ln(max n / n) in all losses of B, large for classes that B seldom predicts.

    See docs/methods/dhc.md, Loss.
    """

    Config = DHCConfig
    accepts_class_weights = False
    info = MethodInfo(
        title="DHC",
        paper="Wang and Li, DHC: Dual-debiased Heterogeneous Co-training Framework for Class-imbalanced Semi-supervised"
        " Medical Image Segmentation, MICCAI 2023",
        year=2023,
        summary="CPS; one network weighted by class difficulty, the other by class frequency",
    )

    def __init__(self, config: DHCConfig, context: MethodContext) -> None:
        super().__init__(config, context)
        self.difficulty = DiffDW(context.num_classes, config.accumulate)
        self.distribution = DistDW(context.class_distribution(), config.momentum)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        labelled = len(batch.image_l)
        x = torch.cat([batch.image_l, batch.unlabelled()])
        za, zb = self.A(x).float(), self.B(x).float()
        ya, yb = za.detach().argmax(1), zb.detach().argmax(1)
        wa = self.difficulty.update(ya[:labelled], batch.label_l)
        wb = self.distribution.update(yb[labelled:])
        # The most frequent class has weight 0 in B: a mean over nothing else would be 0/0.
        ca, cb = wa.clamp(min=1e-6), wb.clamp(min=1e-6)
        supervised = self.supervised_loss(za[:labelled], batch.label_l, ca, wa) + self.supervised_loss(
            zb[:labelled], batch.label_l, cb, wb
        )
        cps = functional.cross_entropy(za, yb, ca) + functional.cross_entropy(zb, ya, cb)
        loss = supervised + self.consistency_weight(progress) * cps
        parts = {"supervised": supervised.detach(), "cps": cps.detach(), "weight_mean_a": wa.mean()}
        return StepOutput(loss, parts)
