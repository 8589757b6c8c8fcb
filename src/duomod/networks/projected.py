"""Any network with a contrastive branch at its bottleneck (docs/methods/dycon.md, Network), as DyCON needs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from duomod.networks.base import Network, Parts, crop
from duomod.networks.u_shaped import Norm, norm_layers

_DILATIONS = (6, 12, 18)
_HIDDEN, _EMBEDDING = 512, 256
#: How much finer the embeddings are than the bottleneck.
_FINER = 2


def _norm(kind: Norm, channels: int) -> nn.Module:
    return norm_layers(kind, channels)[0] if kind != "none" else nn.Identity()


class _Branch(nn.Module):
    """Convolution without bias, normalisation, ReLU."""

    def __init__(self, channels: int, kernel: int, dilation: int, norm: Norm) -> None:
        super().__init__()
        padding = dilation if kernel == 3 else 0
        self.atrous_conv = nn.Conv3d(channels, channels, kernel, padding=padding, dilation=dilation, bias=False)
        self.bn = _norm(norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.atrous_conv(x)))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: 1x1x1, three dilated 3x3x3 branches and the global mean, fused by a 1x1x1.

    (B, C, D, H, W) to the same shape. Kernels reach far beyond a small map; there they see its padding, as published.
    """

    def __init__(self, channels: int, norm: Norm, dropout: float) -> None:
        super().__init__()
        self.aspp1 = _Branch(channels, 1, 1, norm)
        self.aspp2, self.aspp3, self.aspp4 = (_Branch(channels, 3, dilation, norm) for dilation in _DILATIONS)
        self.global_avg_pool = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Conv3d(channels, channels, 1, bias=False))
        # One value per channel and patch: only batch normalisation has anything to normalise over.
        self.bn_after_pool = _norm("batch" if norm == "batch" else "none", channels)
        self.conv1 = nn.Conv3d(5 * channels, channels, 1, bias=False)
        self.bn1 = _norm(norm, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.global_avg_pool(x)
        if len(x) > 1:
            pooled = self.bn_after_pool(pooled)
        branches = [branch(x) for branch in (self.aspp1, self.aspp2, self.aspp3, self.aspp4)]
        stacked = torch.cat([*branches, torch.relu(pooled).expand_as(branches[0])], dim=1)
        return cast(Tensor, self.dropout(torch.relu(self.bn1(self.conv1(stacked)))))


class ProjectedNetwork(Network):
    """A network that also gives embeddings of its bottleneck.

    ``forward`` gives the segmentation logits (B, num_classes, D, H, W), :meth:`embed` also the embeddings.
    """

    form = "a projection of its bottleneck"
    aspp: ASPP
    projection: nn.Sequential

    def add_projection(self, norm: Norm, dropout: float) -> None:
        """Add the contrastive branch, with fresh weights; ``dropout`` is the pyramid's."""
        channels = self.widths[-1]
        self.aspp = ASPP(channels, norm, dropout)
        self.projection = nn.Sequential(
            nn.Conv3d(channels, _HIDDEN, 1),
            _norm(norm, _HIDDEN),
            nn.ReLU(inplace=True),
            nn.Conv3d(_HIDDEN, _EMBEDDING, 1),
            _norm(norm, _EMBEDDING),
        )

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Segmentation logits (B, C, D, H, W), and embeddings (B, 256, d, h, w) twice as fine as the bottleneck."""
        maps = self.encode(x)
        logits = crop(self.head(self.decode(maps)), x)
        fine = functional.interpolate(self.aspp(maps[-1]), scale_factor=_FINER, mode="trilinear", align_corners=True)
        return logits, cast(Tensor, self.projection(fine))

    @classmethod
    def assemble(cls, parts: Parts) -> Network:
        return _Assembled(parts)


class _Assembled(ProjectedNetwork):
    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.network = network = parts.network()
        self.in_channels, self.num_classes = network.in_channels, network.num_classes
        self.stride, self.widths, self.width = network.stride, network.widths, network.width
        self.two_voxels = network.two_voxels
        self.add_projection(parts.config.norm, parts.config.dropout_bottleneck)

    @property
    def description(self) -> str:
        return f"{self.network.description} with projection"

    @property
    def head(self) -> nn.Module:  # type: ignore[override]  # it is the network's
        """The network's own head."""
        return self.network.head

    def encode_padded(self, x: Tensor) -> list[Tensor]:
        return self.network.encode_padded(x)

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        return self.network.decode(maps)
