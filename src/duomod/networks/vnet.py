"""V-Net as the published reference builds it (docs/methods/README.md, V-Net): U-shaped, with additive skips.

The state-dict keys are the reference's (``block_one.conv.0.weight`` ... ``out_conv.bias``): published checkpoints load.
With ``levels`` below five the same scheme is simply shorter: blocks are numbered through encoder and decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from duomod.networks.base import StagedNetwork
from duomod.networks.u_shaped import HalvingDecoder, HalvingEncoder, Norm, UShapedNetwork, norm_layers

_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_CONVS_PER_LEVEL = (1, 2, 3, 3, 3)


class Stage(nn.Module):
    """Convolutions, each with normalisation and ReLU; ``conv`` holds them in a row, as in the reference's keys."""

    def __init__(self, convolutions: list[nn.Module], channels: int, norm: Norm) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for convolution in convolutions:
            layers += [convolution, *norm_layers(norm, channels), nn.ReLU(inplace=True)]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv(x))


def _convolutions(level: int, first: int, width: int) -> list[nn.Module]:
    ins = [first] + [width] * (_CONVS_PER_LEVEL[level] - 1)
    return [nn.Conv3d(channels, width, 3, padding=1) for channels in ins]


class VNetEncoder(HalvingEncoder):
    """The V-Net's encoder, of 2 to 5 levels; arguments as :class:`HalvingEncoder`'s."""

    def __init__(self, in_channels: int, filters: int, norm: Norm, dropout: float, levels: int) -> None:
        if not 2 <= levels <= 5:
            raise ValueError(f"levels must be between 2 and 5, not {levels}")
        super().__init__(in_channels, filters, norm, dropout, levels)
        for level, width in enumerate(self.widths):
            name = f"block_{_NUMBERS[level]}"
            self.add_module(name, Stage(_convolutions(level, width if level else in_channels, width), width, norm))
            if level < levels - 1:
                self.add_module(f"{name}_dw", Stage([nn.Conv3d(width, 2 * width, 2, stride=2)], 2 * width, norm))

    def encode_padded(self, x: Tensor) -> list[Tensor]:
        maps = []
        for level in range(self.levels):
            x = self.get_submodule(f"block_{_NUMBERS[level]}")(x)
            if level < self.levels - 1:
                maps.append(x)
                x = self.get_submodule(f"block_{_NUMBERS[level]}_dw")(x)
        return [*maps, cast(Tensor, self.dropout_bottleneck(x))]


class VNetDecoder(HalvingDecoder):
    """The V-Net's decoder without a head."""

    def add_blocks(self, filters: int, norm: Norm, dropout: float, levels: int) -> None:
        super().add_blocks(filters, norm, dropout, levels)
        for number, level in enumerate(reversed(range(levels - 1)), start=levels):
            width = filters * 2**level
            up = nn.ConvTranspose3d(2 * width, width, 2, stride=2)
            self.add_module(f"block_{_NUMBERS[number - 1]}_up", Stage([up], width, norm))
            self.add_module(f"block_{_NUMBERS[number]}", Stage(_convolutions(level, width, width), width, norm))

    def stages(self, maps: Sequence[Tensor]) -> list[Tensor]:
        x, stages = maps[-1], []
        for number, skip in enumerate(reversed(maps[:-1]), start=len(maps)):
            x = self.get_submodule(f"block_{_NUMBERS[number - 1]}_up")(x) + skip
            x = self.get_submodule(f"block_{_NUMBERS[number]}")(x)
            stages.append(x)
        return stages


class VNet(VNetEncoder, VNetDecoder, UShapedNetwork, StagedNetwork):
    """V-Net: (B, in_channels, D, H, W) to logits (B, num_classes, D, H, W).

    Args:
        in_channels: Input channels.
        num_classes: Classes, background included.
        filters: Channels of the first stage (32 in the paper: 37,778,192 parameters with 16 classes).
        norm: Normalisation after every convolution.
        dropout_bottleneck: Probability of dropping a whole channel after the deepest stage (reference: 0.5).
        dropout_last: The same after the last stage, before the head (reference: 0.5).
        levels: Resolutions, 2 to 5 (reference: 5).
    """

    name = "vnet"
    encoder_class = VNetEncoder
    decoder_class = VNetDecoder

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 16,
        filters: int = 32,
        norm: Norm = "batch",
        dropout_bottleneck: float = 0.5,
        dropout_last: float = 0.5,
        levels: int = 5,
    ) -> None:
        super().__init__(in_channels, filters, norm, dropout_bottleneck, levels)
        self.num_classes = num_classes
        self.add_blocks(filters, norm, dropout_last, levels)
        self.out_conv = nn.Conv3d(filters, num_classes, 1)

    @property
    def head(self) -> nn.Module:  # type: ignore[override]  # the weights are published as ``out_conv``
        """The 1x1x1 convolution from features to logits."""
        return self.out_conv
