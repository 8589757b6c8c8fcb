"""CPS: cross pseudo-supervision."""

from __future__ import annotations

import torch

from duomod.methods.base import Batch, MethodInfo, Progress, StepOutput
from duomod.methods.shared.two_networks import cross_pseudo_supervision
from duomod.methods.skeletons import TwoNetworks


class CPS(TwoNetworks):
    """L = Lsup(A) + Lsup(B) + w(e) [CE(A, argmax B) + CE(B, argmax A)].

    Each network learns from the labels and, on all patches, from the other's hard pseudo-labels.

    See docs/methods/cps.md, Equations.
    """

    info = MethodInfo(
        title="CPS",
        paper="Chen et al., Semi-Supervised Semantic Segmentation with Cross Pseudo Supervision, CVPR 2021",
        year=2021,
        summary="two networks, each trained on the other's hard pseudo-labels",
    )

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        labelled = len(batch.image_l)
        x = torch.cat([batch.image_l, batch.unlabelled()])
        za, zb = self.A(x), self.B(x)
        # L = Lsup(A) + Lsup(B) + w(e) [CE(A, argmax B) + CE(B, argmax A)], the last on all patches
        supervised = self.supervised_loss(za[:labelled], batch.label_l) + self.supervised_loss(
            zb[:labelled], batch.label_l
        )
        cps = cross_pseudo_supervision(za, zb)
        loss = supervised + self.consistency_weight(progress) * cps
        return StepOutput(loss, {"supervised": supervised.detach(), "cps": cps.detach()})
