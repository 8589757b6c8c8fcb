"""SLC-Net: a second network sees the first one's probabilities; both see differently transformed intensities."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from duomod.losses.dice import one_hot
from duomod.losses.ramps import sigmoid_rampup
from duomod.methods.base import Batch, Method, MethodConfig, MethodContext, MethodInfo, Progress, StepOutput
from duomod.methods.shared.noise import clipped_gaussian
from duomod.sampling.settings import ViewConfig


class SLCNetConfig(MethodConfig):
    """Settings of SLC-Net."""

    noise: float = Field(
        0.1, ge=0, description="standard deviation of the second network's and the passes' input noise"
    )
    noise_clip: float = Field(0.05, ge=0, description="largest size of that noise")
    passes: int = Field(8, ge=1, description="noisy passes of the first network that measure its uncertainty")
    blocks: int = Field(1, ge=1, description="the Dice is that of n^3 blocks of the patch; the paper offers 4")
    white_to_black: bool = Field(False, description="the second network's input turns the value 1 into 0")
    softmax_twice: bool = Field(False, description="the mean probability goes through another softmax at prediction")
    published_optimizer: bool = Field(False, description="weight decay 1e-4 and no Nesterov momentum for both networks")

    reference: ClassVar = {
        **MethodConfig.reference,
        "white_to_black": True,
        "softmax_twice": True,
        "published_optimizer": True,
    }
    reference_training: ClassVar = {"optim": {"schedule": "poly"}, "final_epoch": False}

    def view(self, name: str) -> ViewConfig:
        """Each network's input: an intensity curve (none for 2 patches of 5); the second's with noise on top."""
        changes: list[Any] = ["intensity_curve"]
        if name == "second":
            changes += ["white_to_black"] if self.white_to_black else []
            noise = {"sigma_from": self.noise, "sigma": self.noise, "clip": self.noise_clip}
            changes.append({"name": "gaussian_noise", **noise})
        return ViewConfig.model_validate({"transforms": changes, "keep_range": False, "of": "all"})


class Ensemble(nn.Module):
    """(softmax A(x) + softmax B([x, 1 - softmax A(x)])) / 2: probabilities (B, C, D, H, W)."""

    def __init__(self, a: nn.Module, b: nn.Module, outputs_probabilities: bool) -> None:
        super().__init__()
        self.a, self.b, self.outputs_probabilities = a, b, outputs_probabilities

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.a(x).float().softmax(1)
        second: Tensor = self.b(torch.cat([x, (1 - first).to(x.dtype)], dim=1)).float().softmax(1)
        return (first + second) / 2


class SLCNet(Method[SLCNetConfig]):
    """L = sum of both [(CE + Dice) / 2 on labels + w(e) CE with the other's pseudo-labels].

    Both networks see the patch through random intensity curves of their own; the second also sees one minus the first
    one's probabilities, and learns from the first only where that one's noisy passes have little entropy.

    See docs/methods/slcnet.md, Equations.
    """

    Config = SLCNetConfig
    info = MethodInfo(
        title="SLC-Net",
        paper="Liu et al., Semi-supervised Medical Image Segmentation Using Cross-Model Pseudo-Supervision with Shape"
        " Awareness and Local Context Constraints, MICCAI 2022",
        year=2022,
        summary="two networks, the second of which sees the first one's probabilities, on different intensity curves",
    )
    views = ("first", "second")

    def __init__(self, config: SLCNetConfig, context: MethodContext) -> None:
        super().__init__(config, context)
        self.A = context.build_network("default")
        self.B = context.build_network("default", in_channels=context.in_channels + context.num_classes)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        labelled = len(batch.image_l)
        first, second = batch.views["first"].image, batch.views["second"].image
        za = self.A(first).float()
        told = 1 - za.detach().softmax(1)
        zb = self.B(torch.cat([second, told], dim=1)).float()
        supervised = self._supervised(za[:labelled], batch.label_l) + self._supervised(zb[:labelled], batch.label_l)
        sure = self._sure(first[labelled:], progress)
        za_u, zb_u = za[labelled:], zb[labelled:]
        by_b = functional.cross_entropy(za_u, zb_u.detach().argmax(1))
        loss_b = functional.cross_entropy(zb_u, za_u.detach().argmax(1), reduction="none")
        cps = by_b + (loss_b * sure).sum() / (sure.sum() + 1e-8)
        loss = supervised + self.consistency_weight(progress) * cps
        return StepOutput(loss, {"supervised": supervised.detach(), "cps": cps.detach(), "sure": sure.mean()})

    def _supervised(self, logits: Tensor, label: Tensor) -> Tensor:
        """0.5 (CE + Dice)."""
        ce_weight, dice_weight = self.switched_on_weights()
        return 0.5 * (functional.cross_entropy(logits, label, ce_weight) + self._dice(logits, label, dice_weight))

    def _dice(self, logits: Tensor, label: Tensor, weight: Tensor | None) -> Tensor:
        """1 - (2 sum p y + e) / (sum p^2 + sum y^2 + e), e = 1e-5, per class and block over the batch."""
        p, y = logits.softmax(1), one_hot(label, self.num_classes)
        both, squares, truth, pushed = (self._block_sums(v) for v in (p * y, p * p, y, p.detach() * p))
        loss = 1 - (2 * both + 1e-5) / (squares + truth + 1e-5)
        w = logits.new_ones(self.num_classes) if weight is None else weight
        if self.config.absent_class == "constant":
            return (w[:, None] * loss).mean()
        present = truth > 0
        absent = pushed * (loss.shape[1] / label.numel())
        return (w[:, None] * torch.where(present, loss, absent)).sum() / present.sum()

    def _block_sums(self, v: Tensor) -> Tensor:
        """(B, C, D, H, W) to sums (C, blocks)."""
        size = [math.ceil(length / self.config.blocks) for length in v.shape[2:]]
        return functional.avg_pool3d(v.sum(0), size, ceil_mode=True, divisor_override=1).flatten(1)

    @torch.no_grad()
    def _sure(self, image: Tensor, progress: Progress) -> Tensor:
        """Where the first network's noisy passes have little entropy: float (B, D, H, W)."""
        total = torch.zeros((), device=image.device)
        for _ in range(self.config.passes):
            noisy = clipped_gaussian(image, self.config.noise, self.config.noise_clip)
            total = total + self.A(noisy).float().softmax(1)
        mean = total / self.config.passes
        entropy = -(mean * (mean + 1e-6).log()).sum(1)
        # the paper's threshold, ln 2 for any number of classes
        limit = (0.75 + 0.25 * sigmoid_rampup(progress.step, progress.total_steps)) * math.log(2)
        return (entropy < limit).float()

    def parameter_groups(self, optim: Any) -> list[dict[str, Any]]:
        extra = {"weight_decay": 1e-4, "nesterov": False} if self.config.published_optimizer else {}
        return [{**group, **extra} for group in super().parameter_groups(optim)]

    def predictor(self) -> nn.Module:
        return Ensemble(self.A, self.B, outputs_probabilities=not self.config.softmax_twice)

    def published_modules(self) -> dict[str, nn.Module]:
        return {"A": self.A, "B": self.B}
