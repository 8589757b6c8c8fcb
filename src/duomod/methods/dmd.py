"""DMD: two networks distil their softened predictions into each other by a Dice loss."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from duomod.losses.dice import soft_dice_between
from duomod.methods.base import Batch, MethodConfig, MethodInfo, Progress, StepOutput
from duomod.methods.skeletons import TwoNetworks


class DMDConfig(MethodConfig):
    """Settings of DMD; ``consistency_weight`` is its lambda_kd."""

    temperature: float = Field(2.0, gt=0, description="divides the logits before the softmax")

    reference: ClassVar = {**MethodConfig.reference}
    reference_training: ClassVar = {"validation": {"patience": 49}}


class DMD(TwoNetworks[DMDConfig]):
    """L = Lsup(A) + Lsup(B) + w(e) [D(pA, stop pB) + D(pB, stop pA)], p = softmax(z / T).

    D is the Dice loss between two probability maps, on all patches. It is smallest where both are one-hot, so the term
    also sharpens, as published.

    See docs/methods/dmd.md, Equations.
    """

    Config = DMDConfig
    info = MethodInfo(
        title="DMD",
        paper="Xie et al., Deep Mutual Distillation for Semi-Supervised Medical Image Segmentation, MICCAI 2023",
        year=2023,
        summary="two networks distil softened probabilities into each other by a Dice loss",
    )

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        labelled = len(batch.image_l)
        x = torch.cat([batch.image_l, batch.unlabelled()])
        za, zb = self.A(x).float(), self.B(x).float()
        supervised = self.supervised_loss(za[:labelled], batch.label_l) + self.supervised_loss(
            zb[:labelled], batch.label_l
        )
        pa, pb = ((z / self.config.temperature).softmax(1) for z in (za, zb))
        distillation = soft_dice_between(pa, pb.detach()) + soft_dice_between(pb, pa.detach())
        loss = supervised + self.consistency_weight(progress) * distillation
        return StepOutput(loss, {"supervised": supervised.detach(), "distillation": distillation.detach()})
