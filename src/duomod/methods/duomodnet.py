"""DuoMod-Net: cross pseudo-supervision with distribution-aware re-weighting (RLM) and feature modulation (DAFR)."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from duomod.losses.ramps import sigmoid_rampup
from duomod.methods.base import Batch, MethodConfig, MethodContext, MethodInfo, Progress, StepOutput, epochs
from duomod.methods.shared.class_ranks import RLM, Direction, class_gains
from duomod.methods.shared.two_networks import cross_pseudo_supervision
from duomod.methods.skeletons import TwoNetworks


class DuoModNetConfig(MethodConfig):
    """Settings of DuoMod-Net. ``reference`` reproduces the published code, quirks included."""

    rlm: bool = Field(True, description="re-weight the losses by the class distribution")
    rlm_floor: float = Field(0.2, gt=0, le=1, description="weight of the most frequent class before normalisation")
    rlm_momentum: float = Field(0.99, ge=0, lt=1, description="of the running class distribution (RLM)")
    rlm_updates: Literal["once", "twice"] = Field(
        "once", description="per step: once with both networks' mean, or twice (A, then B) with the weights averaged"
    )
    direction: Direction = Field("foreground", description="which predicted classes DAFR expands")
    strength: float = Field(1.0, ge=0, description="DAFR's largest gain above one")
    disagreement_momentum: float = Field(0.99, ge=0, lt=1, description="of the running disagreement of the networks")
    clamp: bool = Field(True, description="clamp the normalised disagreement to [0, 1]")
    dafr_start: float = Field(0.2, ge=0, description="when DAFR starts; below 1: a share of training, else epochs")
    dafr_rampup: float = Field(0.1, ge=0, description="length of its ramp-up; 0: at once; same units")

    reference: ClassVar = {
        **MethodConfig.reference,
        "rlm_updates": "twice",
        "direction": "head",
        "clamp": False,
        "dafr_start": 100,
        "dafr_rampup": 0,
    }


class DAFR(nn.Module):
    """Disagreement-aware feature re-scaling of one network, without parameters (docs/methods/duomodnet.md, DAFR)."""

    minimum: Tensor
    maximum: Tensor
    seen: Tensor

    def __init__(self, num_classes: int, momentum: float = 0.99, clamp: bool = True) -> None:
        super().__init__()
        self.momentum, self.clamp = momentum, clamp
        self.register_buffer("minimum", torch.zeros(num_classes))
        self.register_buffer("maximum", torch.full((num_classes,), math.log(2)))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))

    @torch.no_grad()
    def gain(self, disagreement: Tensor, predicted: Tensor, class_gain: Tensor) -> Tensor:
        """gamma(v) = 1 + a_k(v) u(v), after the running range of each class's disagreement is updated.

        Args:
            disagreement: (B, D, H, W) Jensen-Shannon divergence of the two networks, in [0, ln 2].
            predicted: (B, D, H, W) this network's class k(v).
            class_gain: (C,) a_c.
        """
        d, k = disagreement.flatten(), predicted.flatten()
        # One scatter per bound instead of a loop over classes: no synchronisation with the host.
        low = torch.full_like(self.minimum, torch.inf).scatter_reduce(0, k, d, "amin")
        high = torch.full_like(self.maximum, -torch.inf).scatter_reduce(0, k, d, "amax")
        present = low <= high
        for running, new in ((self.minimum, low), (self.maximum, high)):
            ema = self.momentum * running + (1 - self.momentum) * new
            blended = torch.where(self.seen, ema, new)
            running.copy_(torch.where(present, blended, running))
        self.seen.logical_or_(present)
        span = (self.maximum - self.minimum)[k]
        u = torch.where(span > 0, (d - self.minimum[k]) / (span + 1e-8), 0.5)
        if self.clamp:
            u = u.clamp(0, 1)
        return (1 + class_gain[k] * u).view_as(disagreement)


def jensen_shannon(pa: Tensor, pb: Tensor) -> Tensor:
    """Voxel-wise Jensen-Shannon divergence (natural logarithm) of two probability maps: (B, C, ...) to (B, ...)."""
    log_m = ((pa + pb) / 2 + 1e-8).log()
    from_a, from_b = (functional.kl_div(log_m, p, reduction="none").sum(1) for p in (pa, pb))
    return 0.5 * from_a + 0.5 * from_b


class DuoModNet(TwoNetworks[DuoModNetConfig]):
    """L = Lsup_w(A) + Lsup_w(B) + w(e) [CE_w(A, argmax B) + CE_w(B, argmax A)].

    CPS whose losses RLM re-weights and whose features DAFR expands where the networks disagree. RLM: the class weights
    w follow the logarithm of the running share of each class among the predictions, rare classes counting up to 1/floor
    times as much as frequent ones. DAFR: each network's features before the head are multiplied by gamma = 1 + s a_k u,
    with u the networks' disagreement at the voxel within its running range for the predicted class k, and a_k in [0, 1]
    by the rank of k's frequency. Both act in training only.

    See docs/methods/duomodnet.md, Loss.
    """

    Config = DuoModNetConfig
    info = MethodInfo(
        title="DuoMod-Net",
        paper="DuoMod-Net (reference implementation WayneBo98/DuoMod-Net)",
        year=2025,
        summary="CPS with losses re-weighted by class distribution and features expanded where the networks disagree",
    )

    def __init__(self, config: DuoModNetConfig, context: MethodContext) -> None:
        super().__init__(config, context)
        self.rlm = RLM(context.class_distribution(), self.config.rlm_floor, self.config.rlm_momentum)
        momentum, clamp = self.config.disagreement_momentum, self.config.clamp
        self.dafr_a, self.dafr_b = (DAFR(context.num_classes, momentum, clamp) for _ in range(2))

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        labelled = len(batch.image_l)
        x = torch.cat([batch.image_l, batch.unlabelled()])
        fa, fb = self.A.features(x), self.B.features(x)
        za, zb = self.A.head(fa), self.B.head(fb)
        strength = self._dafr_strength(progress)
        if strength > 0:
            gamma_a, gamma_b = self._gains(za, zb, strength)
            # F' = gamma F before the head; its bias is not scaled
            za, zb = self.A.head(gamma_a.unsqueeze(1) * fa), self.B.head(gamma_b.unsqueeze(1) * fb)
        za, zb = za.float(), zb.float()
        ce_weight, dice_weight = self._class_weights(za[labelled:], zb[labelled:])
        supervised = self.supervised_loss(za[:labelled], batch.label_l, ce_weight, dice_weight) + self.supervised_loss(
            zb[:labelled], batch.label_l, ce_weight, dice_weight
        )
        cps = cross_pseudo_supervision(za, zb, ce_weight)
        loss = supervised + self.consistency_weight(progress) * cps
        parts = {"supervised": supervised.detach(), "cps": cps.detach()}
        if strength > 0:
            parts["dafr_gain"] = (gamma_a.mean() + gamma_b.mean()) / 2
        if ce_weight is not None:
            parts["rlm_weight"] = ce_weight
        return StepOutput(loss, parts)

    def _dafr_strength(self, progress: Progress) -> float:
        """DAFR's strength at this step; 0 before it starts."""
        start = epochs(self.config.dafr_start, progress)
        if self.config.direction == "none" or progress.epoch < start:
            return 0.0
        ramp = sigmoid_rampup(progress.epoch - start, epochs(self.config.dafr_rampup, progress))
        return self.config.strength * ramp

    @torch.no_grad()
    def _gains(self, za: Tensor, zb: Tensor, strength: float) -> tuple[Tensor, Tensor]:
        disagreement = jensen_shannon(za.float().softmax(1), zb.float().softmax(1))
        gains = strength * class_gains(self.rlm.distribution, self.config.direction)
        gamma_a = self.dafr_a.gain(disagreement, za.argmax(1), gains)
        return gamma_a, self.dafr_b.gain(disagreement, zb.argmax(1), gains)

    @torch.no_grad()
    def _class_weights(self, za_u: Tensor, zb_u: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Update RLM with the unlabelled predictions; return the loss weights, or None where RLM is off.

        The distribution is kept up to date even then, because DAFR takes its class ranks from it.
        """
        pa, pb = za_u.softmax(1), zb_u.softmax(1)
        if self.config.rlm_updates == "once":
            self.rlm.update((pa + pb) / 2)
            ce, dice = self.rlm.weights()
        else:
            self.rlm.update(pa)
            ce_a, dice_a = self.rlm.weights()
            self.rlm.update(pb)
            ce_b, dice_b = self.rlm.weights()
            ce, dice = (ce_a + ce_b) / 2, (dice_a + dice_b) / 2
        return (ce, dice) if self.config.rlm else (None, None)
