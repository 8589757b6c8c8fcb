"""DST: pseudo-labels are made by one head and learned by another; a worst-case head keeps the features honest."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from duomod.methods.base import Batch, MethodConfig, MethodContext, MethodInfo, Progress, StepOutput
from duomod.methods.skeletons import TwoNetworks
from duomod.networks.builder import Init
from duomod.networks.decoupled import DecoupledNetwork, reversal_strength


class DSTConfig(MethodConfig):
    """Settings of DST."""

    confidence: float = Field(0.95, ge=0, lt=1, description="pseudo-labels below it do not count")
    pupils: Literal["pseudo", "main"] = Field(
        "pseudo",
        description="pseudo: main heads make the pseudo-labels, pseudo heads learn them (the paper); main: the reverse,"
        " in which nothing trains the pseudo heads",
    )
    labelled_share: float = Field(2.0, ge=0, description="weight of the labelled half of the worst-case loss")

    reference: ClassVar = {**MethodConfig.reference, "pupils": "main"}


class DST(TwoNetworks[DSTConfig]):
    """L = Lsup(main A) + Lsup(main B) + w(e) [pseudo-labels across + worst case of both].

    Each network's pseudo heads learn the confident classes of the other's main head, which itself learns from labels
    only. A worst-case head agrees with the main one on labelled patches and errs as often as it can on the others; the
    encoder gets its gradient reversed.

    See docs/methods/dst.md, Equations.
    """

    Config = DSTConfig
    info = MethodInfo(
        title="DST",
        paper="Chen et al., Debiased Self-Training for Semi-Supervised Learning, NeurIPS 2022;"
        " across two networks as in Wang and Li (DHC), MICCAI 2023",
        year=2022,
        summary="pseudo-labels of the main heads train separate heads; an adversarial head bounds their bias",
    )

    A: DecoupledNetwork
    B: DecoupledNetwork

    def __init__(self, config: DSTConfig, context: MethodContext) -> None:
        super().__init__(config, context)
        if self.config.pupils == "main":
            for network in (self.A, self.B):
                network.decoder_pseudo.requires_grad_(False)

    def network(self, context: MethodContext, init: Init) -> DecoupledNetwork:
        return context.build_network(init, DecoupledNetwork)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        labelled = len(batch.image_l)
        x = torch.cat([batch.image_l, batch.unlabelled()])
        reversal = reversal_strength(progress.step)
        main_a, pseudo_a, worst_a = (z.float() for z in self.A.branches(x, reversal))
        main_b, pseudo_b, worst_b = (z.float() for z in self.B.branches(x, reversal))
        supervised = self.supervised_loss(main_a[:labelled], batch.label_l) + self.supervised_loss(
            main_b[:labelled], batch.label_l
        )
        if self.config.pupils == "pseudo":
            cps = self._taught(pseudo_a, main_b) + self._taught(pseudo_b, main_a)
        else:
            cps = self._taught(main_a, pseudo_b) + self._taught(main_b, pseudo_a)
        worst = self._worst_case(main_a, worst_a, labelled) + self._worst_case(main_b, worst_b, labelled)
        loss = supervised + self.consistency_weight(progress) * (cps + worst)
        parts = {"supervised": supervised.detach(), "cps": cps.detach(), "worst_case": worst.detach()}
        return StepOutput(loss, parts)

    def _taught(self, pupil: Tensor, teacher: Tensor) -> Tensor:
        """Cross-entropy with the teacher's class, averaged over voxels where it is confident."""
        confidence, target = teacher.detach().softmax(1).max(1)
        sure = (confidence > self.config.confidence).float()
        if self.config.pupils == "pseudo":
            # Before any voxel is sure, all count: else the pseudo head would have no gradient and stay random.
            sure = torch.where(sure.amax() > 0, sure, 1.0)
        loss = functional.cross_entropy(pupil, target, reduction="none")
        return (loss * sure).sum() / (sure.sum() + 1e-8)

    def _worst_case(self, main: Tensor, worst: Tensor, labelled: int) -> Tensor:
        """2 CE(worst_L, argmax main_L) + NLL(ln min(1 - p_worst,U + 1e-6, 1), argmax main_U).

        The worst head agrees with the main one on labelled patches and errs as often as it can on the others. The
        encoder gets the reversed gradient and so avoids features that allow this.
        """
        predicted = main.detach().argmax(1)
        agrees = functional.cross_entropy(worst[:labelled], predicted[:labelled])
        wrong = (1 - worst[labelled:].softmax(1) + 1e-6).clamp(max=1).log()
        return self.config.labelled_share * agrees + functional.nll_loss(wrong, predicted[labelled:])
