"""What the V-Net and the U-Net have in common: every level halves the map and doubles its channels."""

from __future__ import annotations

from typing import Literal, Self

from torch import nn

from duomod.config import NetworkConfig
from duomod.networks.base import Encoder, Network, Stages

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


def describe_decoder(decoder: Stages, filters: int, dropout: float, levels: int) -> None:
    """Set what is alike in the decoders that go with a :class:`HalvingEncoder`."""
    decoder.width = filters
    decoder.stage_widths = tuple(filters * 2**level for level in reversed(range(levels - 1)))
    decoder.dropout_last = nn.Dropout3d(dropout)


class UShapedNetwork(Network):
    """A network that takes (in_channels, num_classes, filters, norm, dropout_bottleneck, dropout_last, levels)."""

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
