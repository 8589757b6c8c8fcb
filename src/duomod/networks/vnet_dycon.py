"""V-Net with a contrastive branch at its bottleneck (METHODS 2.3), for DyCON. State-dict keys are the reference's."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from duomod.networks.vnet import Norm, VNet, norm_layers

_DILATIONS = (6, 12, 18)
_HIDDEN, _EMBEDDING = 512, 256


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


class VNetDyCON(VNet):
    """V-Net with two heads and a projection (61,249,056 parameters with 32 filters and 16 classes).

    ``forward`` gives the segmentation logits (B, num_classes, D, H, W), :meth:`embed` also the embeddings.

    Args:
        in_channels, num_classes, filters, norm, dropout_bottleneck, dropout_last, levels: as :class:`VNet`. The
            pyramid's dropout is the bottleneck's.
        feature_scale: How much finer the embeddings are than the bottleneck.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 16,
        filters: int = 32,
        norm: Norm = "batch",
        dropout_bottleneck: float = 0.5,
        dropout_last: float = 0.5,
        levels: int = 5,
        feature_scale: int = 2,
    ) -> None:
        super().__init__(in_channels, num_classes, filters, norm, dropout_bottleneck, dropout_last, levels)
        self.feature_scale = feature_scale
        channels = filters * 2 ** (levels - 1)
        # ``out_conv`` is the head of a signed distance map, which nothing supervises (METHODS 4.14); it is not trained.
        self.out_conv.requires_grad_(False)
        self.out_conv2 = nn.Conv3d(filters, num_classes, 1)
        self.aspp = ASPP(channels, norm, dropout_bottleneck)
        self.projection = nn.Sequential(
            nn.Conv3d(channels, _HIDDEN, 1),
            _norm(norm, _HIDDEN),
            nn.ReLU(inplace=True),
            nn.Conv3d(_HIDDEN, _EMBEDDING, 1),
            _norm(norm, _EMBEDDING),
        )

    @property
    def head(self) -> nn.Module:
        """The segmentation head."""
        return self.out_conv2

    def signed_distance(self, features: Tensor) -> Tensor:
        """tanh of the first head: (B, num_classes, D, H, W) in (-1, 1)."""
        return torch.tanh(self.out_conv(features))

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return segmentation logits (B, C, D, H, W) and embeddings (B, 256, d, h, w) at ``feature_scale``."""
        size = x.shape[2:]
        step = 2 ** (self.levels - 1)
        x = functional.pad(x, [p for length in reversed(size) for p in (0, -length % step)])
        maps = self.encode(x)
        logits = self.head(self.decode(maps))[:, :, : size[0], : size[1], : size[2]]
        fine = functional.interpolate(
            self.aspp(maps[-1]), scale_factor=self.feature_scale, mode="trilinear", align_corners=True
        )
        return logits, cast(Tensor, self.projection(fine))
