"""FCC: features are scaled by how frequent the predicted class is."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from duomod.methods.base import Batch, MethodConfig, MethodContext, MethodInfo, Progress, StepOutput, epochs
from duomod.methods.shared.class_ranks import RLM, class_gains
from duomod.methods.shared.two_networks import cross_pseudo_supervision
from duomod.methods.skeletons import TwoNetworks


class FCCConfig(MethodConfig):
    """Settings of FCC."""

    strength: float = Field(1.0, ge=0, description="the gain of the most frequent class above one")
    start: float = Field(0.2, ge=0, description="when it starts; below 1: a share of training, else epochs")
    momentum: float = Field(0.99, ge=0, lt=1, description="of the class distribution that gives the ranks")

    reference: ClassVar = {**MethodConfig.reference, "start": 100}


class FCC(TwoNetworks[FCCConfig]):
    """CPS on features multiplied by gamma(v) = 1 + s (1 - r_k(v) / (C - 1)).

    k is the class a network predicts at the voxel, r its rank by frequency: the most frequent class is expanded most,
    the rarest not at all. In training only.

    See docs/methods/fcc.md, Equations.
    """

    Config = FCCConfig
    info = MethodInfo(
        title="FCC",
        paper="The rule named FCC in the reference implementation of DuoMod-Net (WayneBo98/DuoMod-Net)",
        year=2025,
        summary="CPS whose features are scaled by the frequency rank of the predicted class",
    )

    def __init__(self, config: FCCConfig, context: MethodContext) -> None:
        super().__init__(config, context)
        self.followed = RLM(context.class_distribution(), floor=1.0, momentum=self.config.momentum)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        labelled = len(batch.image_l)
        x = torch.cat([batch.image_l, batch.unlabelled()])
        fa, fb = self.A.features(x), self.B.features(x)
        za, zb = self.A.head(fa), self.B.head(fb)
        if progress.epoch >= epochs(self.config.start, progress):
            za, zb = self.A.head(self._gain(za) * fa), self.B.head(self._gain(zb) * fb)
        za, zb = za.float(), zb.float()
        self.followed.update((za[labelled:].softmax(1) + zb[labelled:].softmax(1)) / 2)
        supervised = self.supervised_loss(za[:labelled], batch.label_l) + self.supervised_loss(
            zb[:labelled], batch.label_l
        )
        cps = cross_pseudo_supervision(za, zb)
        loss = supervised + self.consistency_weight(progress) * cps
        return StepOutput(loss, {"supervised": supervised.detach(), "cps": cps.detach()})

    @torch.no_grad()
    def _gain(self, logits: Tensor) -> Tensor:
        """gamma as (B, 1, D, H, W)."""
        share = class_gains(self.followed.distribution, "head")
        return 1 + self.config.strength * share[logits.argmax(1)].unsqueeze(1)
