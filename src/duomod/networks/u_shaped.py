"""What the V-Net and the U-Net have in common: every level halves the map and doubles its channels."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from torch import nn

from duomod.config import NetworkConfig
from duomod.networks.base import Decoder, Encoder, Network, Stages

Norm = Literal["batch", "group", "instance", "none"]


def norm_layers(kind: Norm, channels: int) -> list[nn.Module]:
    """Return the normalisation layer for ``channels`` as a list of length 0 or 1 (group norm: 16 groups)."""
    if kind == "batch":
        return [nn.BatchNorm3d(channels)]
    if kind == "group":
        return [nn.GroupNorm(16, channels)]
    if kind == "instance":
        return [nn.InstanceNorm3d(channels, affine=True)]
    return []


class HalvingEncoder(Encoder):
    """An encoder whose maps halve. A subclass adds the blocks, which ``norm`` is for.

    Args:
        in_channels: Input channels.
        filters: Channels of the first map; each further one has twice as many.
        norm: Normalisation after every convolution.
        dropout: Probability of dropping a whole channel of the deepest map.
        levels: Resolutions.
    """

    def __init__(self, in_channels: int, filters: int, norm: Norm, dropout: float, levels: int) -> None:
        super().__init__()
        self.in_channels, self.stride = in_channels, (2 ** (levels - 1),) * 3
        self.widths = tuple(filters * 2**level for level in range(levels))
        self.two_voxels = norm == "instance"
        self.dropout_bottleneck = nn.Dropout3d(dropout)


class HalvingDecoder(Stages):
    """The decoder that goes with a :class:`HalvingEncoder`, alone or as a part of a whole network.

    It has no constructor, because in a whole network its blocks lie beside the encoder's.
    """

    def add_blocks(self, filters: int, norm: Norm, dropout: float, levels: int) -> None:
        """Add the decoder's blocks, with fresh weights; arguments as :class:`HalvingEncoder`'s."""
        self.width = filters
        self.stage_widths = tuple(filters * 2**level for level in reversed(range(levels - 1)))
        self.dropout_last = nn.Dropout3d(dropout)

    @classmethod
    def alone(cls, filters: int, norm: Norm, dropout: float, levels: int) -> Self:
        """A decoder without the rest of a network."""
        decoder = cls()
        decoder.add_blocks(filters, norm, dropout, levels)
        return decoder


class UShapedNetwork(Network):
    """A network that takes (in_channels, num_classes, filters, norm, dropout_bottleneck, dropout_last, levels)."""

    encoder_class: ClassVar[type[HalvingEncoder]]
    decoder_class: ClassVar[type[HalvingDecoder]]

    @classmethod
    def from_config(cls, config: NetworkConfig, in_channels: int, num_classes: int) -> Self:
        return cls(
            in_channels,
            num_classes,
            config.filters,
            config.norm,
            config.dropout_bottleneck,
            config.dropout_last,
            config.levels,
        )

    @classmethod
    def encoder_alone(cls, config: NetworkConfig, in_channels: int) -> Encoder:
        return cls.encoder_class(in_channels, config.filters, config.norm, config.dropout_bottleneck, config.levels)

    @classmethod
    def decoder_alone(cls, config: NetworkConfig) -> Decoder:
        return cls.decoder_class.alone(config.filters, config.norm, config.dropout_last, config.levels)
