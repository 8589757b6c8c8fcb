"""A plain 3D U-Net with concatenated skip connections (Çiçek et al., MICCAI 2016), for small and fast runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from duomod.networks.base import StagedNetwork
from duomod.networks.u_shaped import HalvingDecoder, HalvingEncoder, Norm, UShapedNetwork, norm_layers


def _block(inputs: int, outputs: int, norm: Norm) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv3d(channels, outputs, 3, padding=1), *norm_layers(norm, outputs), nn.LeakyReLU(0.01, True)]
    return nn.Sequential(*layers)


class UNetEncoder(HalvingEncoder):
    """The U-Net's encoder; arguments as :class:`HalvingEncoder`'s."""

    def __init__(self, in_channels: int, filters: int, norm: Norm, dropout: float, levels: int) -> None:
        super().__init__(in_channels, filters, norm, dropout, levels)
        ins = [in_channels, *self.widths[:-1]]
        self.encoder = nn.ModuleList(_block(i, o, norm) for i, o in zip(ins, self.widths, strict=True))
        self.pool = nn.MaxPool3d(2)

    def encode_padded(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(self.pool(x) if level else x)
            maps.append(x)
        return [*maps[:-1], cast(Tensor, self.dropout_bottleneck(maps[-1]))]


class UNetDecoder(HalvingDecoder):
    """The U-Net's decoder without a head."""

    up: nn.ModuleList
    decoder: nn.ModuleList

    def add_blocks(self, filters: int, norm: Norm, dropout: float, levels: int) -> None:
        super().add_blocks(filters, norm, dropout, levels)
        self.up = nn.ModuleList(nn.ConvTranspose3d(2 * w, w, 2, stride=2) for w in self.stage_widths)
        self.decoder = nn.ModuleList(_block(2 * w, w, norm) for w in self.stage_widths)

    def stages(self, maps: Sequence[Tensor]) -> list[Tensor]:
        x, stages = maps[-1], []
        for up, block, skip in zip(self.up, self.decoder, reversed(maps[:-1]), strict=True):
            x = block(torch.cat([up(x), skip], dim=1))
            stages.append(x)
        return stages


class UNet(UNetEncoder, UNetDecoder, UShapedNetwork, StagedNetwork):
    """U-Net: (B, in_channels, D, H, W) to logits (B, num_classes, D, H, W); arguments as the V-Net's."""

    name = "unet"
    encoder_class = UNetEncoder
    decoder_class = UNetDecoder

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
        super().__init__(in_channels, filters, norm, dropout_bottleneck, levels)
        self.num_classes = num_classes
        self.add_blocks(filters, norm, dropout_last, levels)
        self.head = nn.Conv3d(filters, num_classes, 1)
