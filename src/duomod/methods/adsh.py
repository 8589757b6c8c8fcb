"""Adsh: confidence thresholds that accept the same share of every class."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from duomod.methods.base import Batch, MethodConfig, MethodContext, MethodInfo, Progress, StepOutput
from duomod.methods.skeletons import TwoNetworks


class AdshConfig(MethodConfig):
    """Settings of Adsh."""

    major: float = Field(0.9, gt=0, lt=1, description="threshold of the most frequent class")
    bins: int = Field(1000, ge=10, description="of the confidence histogram, per class")
    counted: Literal["predicted", "all"] = Field(
        "predicted", description="scores of a class: those of voxels predicted as it (the paper), or of all voxels"
    )
    refresh: Literal["step", "quarter_epoch"] = Field(
        "step", description="thresholds from a fading histogram every step, or from a quarter epoch's at its end"
    )
    fade: float = Field(0.99, ge=0, lt=1, description="what stays of the histogram from step to step")
    rejects: Literal["loss", "logits"] = Field(
        "loss", description="rejected voxels: their loss does not count, or rejected channels' logits become 0"
    )

    reference: ClassVar = {
        **MethodConfig.reference,
        "counted": "all",
        "refresh": "quarter_epoch",
        "rejects": "logits",
    }


class AdaptiveThresholds(nn.Module):
    """Thresholds (C,) of one network, from a histogram of bounded size (docs/methods/adsh.md, Equations)."""

    histogram: Tensor
    predicted: Tensor
    thresholds: Tensor

    def __init__(self, num_classes: int, settings: AdshConfig) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("histogram", torch.zeros(num_classes, settings.bins))
        self.register_buffer("predicted", torch.zeros(num_classes))
        self.register_buffer("thresholds", torch.zeros(num_classes))

    @torch.no_grad()
    def update(self, probabilities: Tensor, progress: Progress) -> None:
        """Follow the unlabelled predictions (B, C, D, H, W)."""
        fading = self.settings.refresh == "step"
        if fading:
            self.histogram.mul_(self.settings.fade)
            self.predicted.mul_(self.settings.fade)
        confidence, k = probabilities.max(1)
        self.predicted.scatter_add_(0, k.flatten(), torch.ones_like(confidence).flatten())
        if self.settings.counted == "predicted":
            score, of_class = confidence, k
        else:
            classes = torch.arange(probabilities.shape[1], device=k.device).view(1, -1, 1, 1, 1)
            score, of_class = probabilities, classes.expand_as(probabilities)
        bins = self.settings.bins
        cell = of_class * bins + (score * bins).long().clamp(max=bins - 1)
        self.histogram.view(-1).scatter_add_(0, cell.flatten(), torch.ones_like(score).flatten())
        if fading:
            self.thresholds.copy_(self.from_histogram())
        elif (progress.step + 1) % max(1, progress.steps_per_epoch // 4) == 0:
            self.thresholds.copy_(self.from_histogram())
            self.histogram.zero_()
            self.predicted.zero_()

    def from_histogram(self) -> Tensor:
        """threshold_c = floor(rho n_c)-th largest score of c; rho = the accepted share of the most frequent class."""
        bins = self.settings.bins
        major = self.predicted.argmax()
        above = self.histogram[:, round(self.settings.major * bins) :].sum(1)
        rho = (above.take(major) + 1e-8) / (self.predicted.take(major) + 1e-8)
        rank = (rho.clamp(max=1) * self.predicted).floor()
        # scores in this bin or a higher one; the wanted score lies in the highest bin where they outnumber the rank
        at_least = self.histogram.flip(1).cumsum(1).flip(1)
        return ((at_least > rank.unsqueeze(1)).sum(1) - 1).clamp(min=0) / bins


class Adsh(TwoNetworks[AdshConfig]):
    """L = Lsup(A) + Lsup(B) + w(e) mean_v [p_k(v) > threshold_k] CE, each with the other's class k.

    CPS on voxels whose pseudo-label is confident for its class. The thresholds accept the same share of every class:
    that of the most frequent one's voxels above ``major``.

    See docs/methods/adsh.md, Equations.
    """

    Config = AdshConfig
    info = MethodInfo(
        title="Adsh",
        paper="Guo and Li, Class-Imbalanced Semi-Supervised Learning with Adaptive Thresholding, ICML 2022;"
        " for segmentation as in Wang and Li (DHC), MICCAI 2023",
        year=2022,
        summary="CPS on confident voxels, with thresholds that accept the same share of every class",
    )

    def __init__(self, config: AdshConfig, context: MethodContext) -> None:
        super().__init__(config, context)
        self.accepts_a = AdaptiveThresholds(context.num_classes, self.config)
        self.accepts_b = AdaptiveThresholds(context.num_classes, self.config)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        labelled = len(batch.image_l)
        x = torch.cat([batch.image_l, batch.unlabelled()])
        za, zb = self.A(x).float(), self.B(x).float()
        pa, pb = za.detach().softmax(1), zb.detach().softmax(1)
        self.accepts_a.update(pa[labelled:], progress)
        self.accepts_b.update(pb[labelled:], progress)
        supervised = self.supervised_loss(za[:labelled], batch.label_l) + self.supervised_loss(
            zb[:labelled], batch.label_l
        )
        cps = self._taught(za, pb, self.accepts_b.thresholds) + self._taught(zb, pa, self.accepts_a.thresholds)
        loss = supervised + self.consistency_weight(progress) * cps
        return StepOutput(loss, {"supervised": supervised.detach(), "cps": cps.detach()})

    def _taught(self, logits: Tensor, teacher: Tensor, thresholds: Tensor) -> Tensor:
        """CE(z, argmax of the other) on accepted voxels, mean over all voxels."""
        confidence, target = teacher.max(1)
        if self.config.rejects == "logits":
            accepted = teacher > thresholds.view(1, -1, 1, 1, 1)
            return functional.cross_entropy(logits * accepted, target)
        loss = functional.cross_entropy(logits, target, reduction="none")
        return (loss * (confidence > thresholds[target])).mean()
