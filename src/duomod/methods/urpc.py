"""URPC: predictions of all resolutions agree with their mean, less so where they are uncertain."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from duomod.methods.base import Batch, Method, MethodConfig, MethodContext, MethodInfo, Progress, StepOutput
from duomod.networks.base import StagedNetwork, crop


class URPCConfig(MethodConfig):
    """Settings of URPC."""

    dropout: tuple[float, float, float] = Field(
        (0.5, 0.3, 0.2), description="before the extra heads, from the coarsest; finer ones repeat the last"
    )

    #: The published ramp lasts the whole training.
    reference: ClassVar = {**MethodConfig.reference, "rampup": 0.9999}


class Pyramid(nn.Module):
    """A network with one more head on every coarser decoder stage."""

    def __init__(self, network: StagedNetwork, num_classes: int, dropout: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        widths = network.stage_widths[:-1]
        rates = [dropout[min(i, len(dropout) - 1)] for i in range(len(widths))]
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Dropout3d(rate), nn.Conv3d(width, num_classes, 1))
            for rate, width in zip(rates, widths, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Logits (B, C, D, H, W) of every decoder stage at the input's size, the finest first."""
        *coarse, finest = self.network.stages(self.network.encode(x))
        scales = [head(stage) for head, stage in zip(self.heads, coarse, strict=True)]
        scales.append(self.network.head(self.network.dropout_last(finest)))
        return [crop(_resized(z, finest), x).float() for z in reversed(scales)]


def _resized(z: Tensor, like: Tensor) -> Tensor:
    """Trilinear, where the sizes differ."""
    if z.shape[2:] == like.shape[2:]:
        return z
    return functional.interpolate(z.float(), size=like.shape[2:], mode="trilinear", align_corners=False)


class URPC(Method[URPCConfig]):
    """L = mean_s Lsup(z_s) / 2 + w(e) mean_s R(p_s, mean_s p_s).

    Heads at all resolutions s agree with their mean; R counts a voxel less, by e^-D, the larger the divergence D of
    that head from the mean. The finest head predicts.

    See docs/methods/urpc.md, Equations.
    """

    Config = URPCConfig
    info = MethodInfo(
        title="URPC",
        paper="Luo et al., Efficient Semi-Supervised Gross Target Volume Segmentation via Uncertainty Rectified Pyramid"
        " Consistency, MICCAI 2021",
        year=2021,
        summary="heads at all resolutions agree with their mean, uncertain voxels counting less",
    )

    def __init__(self, config: URPCConfig, context: MethodContext) -> None:
        super().__init__(config, context)
        network = context.build_network("kaiming", StagedNetwork)
        self.pyramid = Pyramid(network, context.num_classes, self.config.dropout)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        labelled = len(batch.image_l)
        scales = self.pyramid(torch.cat([batch.image_l, batch.unlabelled()]))
        # the paper halves Dice + cross-entropy
        supervised = 0.5 * torch.stack([self.supervised_loss(z[:labelled], batch.label_l) for z in scales]).mean()
        log_p = [z[labelled:].log_softmax(1) for z in scales]
        mean = torch.stack([q.exp() for q in log_p]).mean(0)
        consistency = torch.stack([_rectified(q, mean) for q in log_p]).mean()
        loss = supervised + self.consistency_weight(progress) * consistency
        return StepOutput(loss, {"supervised": supervised.detach(), "consistency": consistency.detach()})

    def predictor(self) -> nn.Module:
        return self.pyramid.network

    def published_modules(self) -> dict[str, nn.Module]:
        return {"model": self.pyramid.network}


def _rectified(log_p: Tensor, mean: Tensor) -> Tensor:
    """mean_v[(p - pbar)^2 e^-D] / mean_v[e^-D] + mean_v[D] with D = KL(pbar || p_s) voxel by voxel (eq. 4-5)."""
    distance = functional.kl_div(log_p, mean, reduction="none").sum(1, keepdim=True)
    trust = torch.exp(-distance)
    return ((log_p.exp() - mean).square() * trust).mean() / (trust.mean() + 1e-8) + distance.mean()
