"""URPC: predictions of all resolutions agree with their mean, less so where they are uncertain."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from duomod.methods.base import Batch, Method, MethodConfig, MethodContext, MethodInfo, Progress, StepOutput
from duomod.networks.vnet import Stage, VNet


class URPCConfig(MethodConfig):
    """Settings of URPC."""

    dropout: tuple[float, float, float] = Field(
        (0.5, 0.3, 0.2), description="before the extra heads, from the coarsest; finer ones repeat the last"
    )

    #: The published ramp lasts the whole training.
    reference: ClassVar[Any] = {**MethodConfig.reference, "rampup": 0.9999}


class Pyramid(nn.Module):
    """A V-Net with one more head on every coarser decoder stage."""

    def __init__(self, network: VNet, num_classes: int, dropout: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        widths = [network.out_conv.in_channels * 2**level for level in reversed(range(1, network.levels - 1))]
        rates = [dropout[min(i, len(dropout) - 1)] for i in range(len(widths))]
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Dropout3d(rate), nn.Conv3d(width, num_classes, 1))
            for rate, width in zip(rates, widths, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Logits (B, C, D, H, W) of every decoder stage at the input's size, the finest first."""
        size = x.shape[2:]
        step = 2 ** (self.network.levels - 1)
        x = functional.pad(x, [p for length in reversed(size) for p in (0, -length % step)])
        padded = x.shape[2:]
        maps = self.network.encode(x)
        stages = [m for m in self.network.children() if isinstance(m, Stage)][2 * self.network.levels - 1 :]
        heads: list[nn.Module] = [*self.heads, nn.Sequential(self.network.dropout_last, self.network.head)]
        x, logits = maps[-1], []
        for up, block, skip, head in zip(stages[::2], stages[1::2], maps[-2::-1], heads, strict=True):
            x = block(up(x) + skip)
            z = head(x)
            if z.shape[2:] != padded:
                z = functional.interpolate(z.float(), size=padded, mode="trilinear", align_corners=False)
            logits.append(z[:, :, : size[0], : size[1], : size[2]].float())
        return logits[::-1]


class URPC(Method):
    """L = mean_s Lsup(z_s) + w(e) mean_s Lcons(p_s, mean_s p_s) (eq. 2-6); prediction is the finest head's."""

    Config = URPCConfig
    info = MethodInfo(
        title="URPC",
        paper="Luo et al., Efficient Semi-Supervised Gross Target Volume Segmentation via Uncertainty Rectified Pyramid"
        " Consistency, MICCAI 2021",
        year=2021,
        summary="heads at all resolutions agree with their mean, uncertain voxels counting less",
    )

    def __init__(self, config: MethodConfig, context: MethodContext) -> None:
        super().__init__(config, context)
        network = context.build_network("kaiming", kind="vnet")
        self.pyramid = Pyramid(network, context.num_classes, cast(URPCConfig, config).dropout)

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
