"""GALoss: gradient-aware Dice and cross-entropy, on cross pseudo-supervision."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from duomod.losses.dice import ga_dice
from duomod.losses.gace import gace
from duomod.methods.base import Batch, MethodConfig, MethodInfo, Progress, StepOutput
from duomod.methods.skeletons import TwoNetworks


class GALossConfig(MethodConfig):
    """Settings of GALoss. Its Dice has its own rule for absent classes, so ``absent_class`` changes nothing."""

    hardest: float = Field(10.0, gt=0, le=100, description="percent of labelled voxels whose cross-entropy counts")
    gamma: float = Field(0.5, ge=0, le=1, description="0: every class counts alike; 1: every voxel")

    reference: ClassVar = {**MethodConfig.reference}


class GALoss(TwoNetworks[GALossConfig]):
    """L = sum over both of GACE_10(z, y) + GADice(p, y) + w(e) GACE_100(z, argmax of the other).

    GACE_k is a cross-entropy over the k per cent hardest voxels, balanced between classes; GADice pushes classes that
    are not in the truth down by their own probability.

    See docs/methods/galoss.md, Equations.
    """

    Config = GALossConfig
    accepts_class_weights = False
    info = MethodInfo(
        title="GALoss",
        paper="Qi et al., Gradient-Aware for Class-Imbalanced Semi-supervised Medical Image Segmentation, ECCV 2024;"
        " on cross pseudo-supervision",
        year=2024,
        summary="CPS with class-balanced cross-entropy over the hardest voxels and a Dice that lowers absent classes",
    )

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        labelled = len(batch.image_l)
        x = torch.cat([batch.image_l, batch.unlabelled()])
        za, zb = self.A(x).float(), self.B(x).float()
        supervised = self._supervised(za[:labelled], batch.label_l) + self._supervised(zb[:labelled], batch.label_l)
        gamma = self.config.gamma
        cps = gace(za, zb.detach().argmax(1), 100, gamma) + gace(zb, za.detach().argmax(1), 100, gamma)
        loss = supervised + self.consistency_weight(progress) * cps
        return StepOutput(loss, {"supervised": supervised.detach(), "cps": cps.detach()})

    def _supervised(self, logits: Tensor, label: Tensor) -> Tensor:
        return gace(logits, label, self.config.hardest, self.config.gamma) + ga_dice(logits.softmax(1), label)
