"""A plain 3D U-Net with concatenated skip connections (Çiçek et al., MICCAI 2016), for small and fast runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from duomod.config import NetworkConfig
from duomod.networks.base import Decoder, Encoder, StagedNetwork, Stages
from duomod.networks.u_shaped import HalvingEncoder, Norm, UShapedNetwork, describe_decoder, norm_layers


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


def _add_decoder(owner: Stages, filters: int, norm: Norm, dropout: float, levels: int) -> None:
    """Give ``owner`` a decoder's blocks, as its own: in a whole U-Net they lie beside the encoder's."""
    describe_decoder(owner, filters, dropout, levels)
    owner.add_module("up", nn.ModuleList(nn.ConvTranspose3d(2 * w, w, 2, stride=2) for w in owner.stage_widths))
    owner.add_module("decoder", nn.ModuleList(_block(2 * w, w, norm) for w in owner.stage_widths))


def _stages(owner: Stages, maps: Sequence[Tensor]) -> list[Tensor]:
    """Run those blocks."""
    x, stages = maps[-1], []
    for number, skip in enumerate(reversed(maps[:-1])):
        x = torch.cat([owner.get_submodule(f"up.{number}")(x), skip], dim=1)
        x = owner.get_submodule(f"decoder.{number}")(x)
        stages.append(x)
    return stages


class UNetDecoder(Stages):
    """The U-Net's decoder without a head; arguments as :class:`UNetEncoder`'s."""

    def __init__(self, filters: int, norm: Norm, dropout: float, levels: int) -> None:
        super().__init__()
        _add_decoder(self, filters, norm, dropout, levels)

    def stages(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return _stages(self, maps)


class UNet(UNetEncoder, UShapedNetwork, StagedNetwork):
    """U-Net: (B, in_channels, D, H, W) to logits (B, num_classes, D, H, W); arguments as the V-Net's."""

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
        _add_decoder(self, filters, norm, dropout_last, levels)
        self.head = nn.Conv3d(filters, num_classes, 1)

    def stages(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return _stages(self, maps)

    @classmethod
    def encoder_alone(cls, config: NetworkConfig, in_channels: int) -> Encoder:
        return UNetEncoder(in_channels, config.filters, config.norm, config.dropout_bottleneck, config.levels)

    @classmethod
    def decoder_alone(cls, config: NetworkConfig) -> Decoder:
        return UNetDecoder(config.filters, config.norm, config.dropout_last, config.levels)
