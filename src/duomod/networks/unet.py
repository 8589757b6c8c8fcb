"""A plain 3D U-Net with concatenated skip connections (Çiçek et al., MICCAI 2016), for small and fast runs."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from duomod.networks.vnet import Norm, norm_layers


def _block(inputs: int, outputs: int, norm: Norm) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv3d(channels, outputs, 3, padding=1), *norm_layers(norm, outputs), nn.LeakyReLU(0.01, True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """U-Net: (B, in_channels, D, H, W) to logits (B, num_classes, D, H, W); arguments as the V-Net's.

    Sizes that the encoder cannot halve evenly are zero-padded at the end of each axis and cropped again.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 16,
        filters: int = 16,
        norm: Norm = "instance",
        dropout_bottleneck: float = 0.0,
        dropout_last: float = 0.0,
        levels: int = 4,
    ) -> None:
        super().__init__()
        widths = [filters * 2**level for level in range(levels)]
        ins = [in_channels, *widths[:-1]]
        self.encoder = nn.ModuleList(_block(i, o, norm) for i, o in zip(ins, widths, strict=True))
        self.pool = nn.MaxPool3d(2)
        self.up = nn.ModuleList(nn.ConvTranspose3d(w, w // 2, 2, stride=2) for w in reversed(widths[1:]))
        self.decoder = nn.ModuleList(_block(2 * w, w, norm) for w in reversed(widths[:-1]))
        self.dropout_bottleneck = nn.Dropout3d(dropout_bottleneck)
        self.dropout_last = nn.Dropout3d(dropout_last)
        self.head = nn.Conv3d(filters, num_classes, 1)

    def features(self, x: Tensor) -> Tensor:
        """Return the features the head works on: (B, filters, D, H, W)."""
        size = x.shape[2:]
        step = 2 ** len(self.up)
        x = nn.functional.pad(x, [p for length in reversed(size) for p in (0, -length % step)])
        maps: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(self.pool(x) if level else x)
            maps.append(x)
        x = self.dropout_bottleneck(maps.pop())
        for up, block in zip(self.up, self.decoder, strict=True):
            x = block(torch.cat([up(x), maps.pop()], dim=1))
        return cast(Tensor, self.dropout_last(x))[:, :, : size[0], : size[1], : size[2]]

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.features(x)))
