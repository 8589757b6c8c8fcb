"""CLD: pseudo-labels of classes the network is unsure of are kept more often."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from duomod.methods.base import Batch, MethodConfig, MethodContext, MethodInfo, Progress, StepOutput
from duomod.methods.skeletons import TwoNetworks


class CLDConfig(MethodConfig):
    """Settings of CLD."""

    momentum: float = Field(0.99, ge=0, lt=1, description="of the class confidence")
    every: int = Field(8, ge=1, description="steps over which a new confidence is gathered")
    power: float = Field(0.5, gt=0, description="gamma of the sampling rate")
    keep: Literal["hard", "easy"] = Field("hard", description="a voxel stays with probability rate, or 1 - rate")
    initial: Literal["first", "random"] = Field(
        "first", description="first: everything stays until a confidence is known, which then counts fully; random"
    )
    label_weights: bool = Field(True, description="weigh classes by (max n / n_c)^(1/3), n from the labelled scans")

    reference: ClassVar = {
        **MethodConfig.reference,
        "keep": "easy",
        "initial": "random",
        "label_weights": False,
    }


class ConfidenceBank(nn.Module):
    """Running mean probability at the true class, per class (docs/methods/cld.md, Equations)."""

    confidence: Tensor
    known: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(self, num_classes: int, settings: CLDConfig) -> None:
        super().__init__()
        self.settings = settings
        random = settings.initial == "random"
        self.register_buffer("confidence", torch.rand(num_classes) if random else torch.zeros(num_classes))
        self.register_buffer("known", torch.full((num_classes,), random))
        self.register_buffer("sums", torch.zeros(num_classes))
        self.register_buffer("counts", torch.zeros(num_classes))

    @torch.no_grad()
    def update(self, probabilities: Tensor, label: Tensor, step: int) -> None:
        """Gather a labelled batch; every so many steps, conf <- m conf + (1 - m) new. Classes not met keep theirs."""
        at_truth, y = probabilities.gather(1, label.unsqueeze(1)).flatten(), label.flatten()
        self.sums.scatter_add_(0, y, at_truth)
        self.counts.scatter_add_(0, y, torch.ones_like(at_truth))
        if (step + 1) % self.settings.every != 0:
            return
        new = self.sums / (self.counts + 1e-12)
        blended = torch.where(self.known, self.confidence + (1 - self.settings.momentum) * (new - self.confidence), new)
        # The reference counts a class that did not occur as one with confidence 0.
        met = self.counts > 0 if self.settings.initial == "first" else torch.ones_like(self.known)
        self.confidence.copy_(torch.where(met, blended, self.confidence))
        self.known.logical_or_(met)
        self.sums.zero_()
        self.counts.zero_()

    @torch.no_grad()
    def mask(self, predicted: Tensor) -> Tensor:
        """Which voxels of ``predicted`` (B, D, H, W) stay: float of the same shape."""
        # rate_c = ((1 - conf_c) / max (1 - conf))^gamma
        doubt = 1 - self.confidence
        rate = (doubt / (doubt.max() + 1e-12)) ** self.settings.power
        probability = rate if self.settings.keep == "hard" else 1 - rate
        return (torch.rand(predicted.shape, device=predicted.device) < probability[predicted]).float()


class CLD(TwoNetworks[CLDConfig]):
    """L = Lsup_g(A) + Lsup_g(B) + w(e) [CE(A, argmax B) + CE(B, argmax A) on sampled voxels].

    A voxel predicted as class c stays with probability ((1 - conf_c) / max (1 - conf))^power, conf_c being the running
    mean probability at the true class: classes with little confidence stay more often. g_c = (max n / n_c)^(1/3) are
    the paper's class weights; its crops around rare classes are what balanced sampling does for all.

    See docs/methods/cld.md, Equations.
    """

    Config = CLDConfig
    accepts_class_weights = False
    info = MethodInfo(
        title="CLD",
        paper="Lin et al., Calibrating Label Distribution for Class-Imbalanced Barely-Supervised Knee Segmentation,"
        " MICCAI 2022",
        year=2022,
        summary="CPS on sampled voxels, more of the classes the networks are unsure of",
    )
    weight: Tensor

    def __init__(self, config: CLDConfig, context: MethodContext) -> None:
        super().__init__(config, context)
        self.bank_a = ConfidenceBank(context.num_classes, self.config)
        self.bank_b = ConfidenceBank(context.num_classes, self.config)
        counts = context.class_counts.float()
        # a class without a labelled voxel weighs as much as the rarest that has one
        counts = torch.where(counts > 0, counts, torch.where(counts > 0, counts, torch.inf).min())
        self.register_buffer("weight", (counts.max() / counts) ** (1 / 3))

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        labelled = len(batch.image_l)
        x = torch.cat([batch.image_l, batch.unlabelled()])
        za, zb = self.A(x).float(), self.B(x).float()
        ya, yb = za.detach().argmax(1), zb.detach().argmax(1)
        self.bank_a.update(za[:labelled].detach().softmax(1), batch.label_l, progress.step)
        self.bank_b.update(zb[:labelled].detach().softmax(1), batch.label_l, progress.step)
        weight = self.weight if self.config.label_weights else torch.ones_like(self.weight)
        # Dice weights have mean one, so that the two halves of the loss stay in proportion
        dice_weight = weight / weight.mean()
        supervised = self.supervised_loss(za[:labelled], batch.label_l, weight, dice_weight) + self.supervised_loss(
            zb[:labelled], batch.label_l, weight, dice_weight
        )
        kept_a, kept_b = self.bank_a.mask(ya), self.bank_b.mask(yb)
        cps = _masked_mean(za, yb, kept_a * weight[yb]) + _masked_mean(zb, ya, kept_b * weight[ya])
        loss = supervised + self.consistency_weight(progress) * cps
        parts = {"supervised": supervised.detach(), "cps": cps.detach(), "kept": (kept_a.mean() + kept_b.mean()) / 2}
        return StepOutput(loss, parts)


def _masked_mean(logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy with weights ``mask`` (B, D, H, W)."""
    return (functional.cross_entropy(logits, target, reduction="none") * mask).sum() / (mask.sum() + 1e-8)
