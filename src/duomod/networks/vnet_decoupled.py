"""V-Net with one encoder and three decoders (METHODS 2.2), for DST; its encoder and decoder also serve SKCDF's network.

The state-dict keys are the reference's (``block_one...``, ``decoder.``, ``decoder_pseudo.``, ``decoder_worst.``).
"""

from __future__ import annotations

import math
from typing import cast

from torch import Tensor, nn

from duomod.networks.vnet import _CONVS_PER_LEVEL, _NUMBERS, Norm, Stage


def _convolutions(level: int, first: int, width: int) -> list[nn.Module]:
    ins = [first] + [width] * (_CONVS_PER_LEVEL[level] - 1)
    return [nn.Conv3d(channels, width, 3, padding=1) for channels in ins]


class Encoder(nn.Module):
    """The V-Net's encoder: (B, in_channels, D, H, W) to one map per level, halved from level to level.

    Args:
        in_channels: Input channels.
        filters: Channels of the first level; each further level doubles them.
        norm: Normalisation after every convolution.
        dropout: Probability of dropping a whole channel of the deepest map.
        levels: Resolutions, 2 to 5.
    """

    def __init__(self, in_channels: int, filters: int, norm: Norm, dropout: float, levels: int) -> None:
        super().__init__()
        if not 2 <= levels <= 5:
            raise ValueError(f"levels must be between 2 and 5, not {levels}")
        self.levels = levels
        for level in range(levels):
            name, width = f"block_{_NUMBERS[level]}", filters * 2**level
            self.add_module(name, Stage(_convolutions(level, width if level else in_channels, width), width, norm))
            if level < levels - 1:
                self.add_module(f"{name}_dw", Stage([nn.Conv3d(width, 2 * width, 2, stride=2)], 2 * width, norm))
        self.dropout_bottleneck = nn.Dropout3d(dropout)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Zero-pad ``x`` to sizes that halve evenly; return the maps from full resolution to the bottleneck."""
        step = 2 ** (self.levels - 1)
        x = nn.functional.pad(x, [p for length in reversed(x.shape[2:]) for p in (0, -length % step)])
        maps = []
        for level in range(self.levels):
            x = self.get_submodule(f"block_{_NUMBERS[level]}")(x)
            if level < self.levels - 1:
                maps.append(x)
                x = self.get_submodule(f"block_{_NUMBERS[level]}_dw")(x)
        return [*maps, cast(Tensor, self.dropout_bottleneck(x))]


class Decoder(nn.Module):
    """The V-Net's decoder without a head: an :class:`Encoder`'s maps to features (B, filters, D, H, W)."""

    def __init__(self, filters: int, norm: Norm, dropout: float, levels: int) -> None:
        super().__init__()
        self.levels = levels
        for number, level in enumerate(reversed(range(levels - 1)), start=levels):
            width = filters * 2**level
            up = nn.ConvTranspose3d(2 * width, width, 2, stride=2)
            self.add_module(f"block_{_NUMBERS[number - 1]}_up", Stage([up], width, norm))
            self.add_module(f"block_{_NUMBERS[number]}", Stage(_convolutions(level, width, width), width, norm))
        self.dropout_last = nn.Dropout3d(dropout)

    def decode(self, maps: list[Tensor]) -> Tensor:
        """Return the features after the last dropout."""
        x = maps[-1]
        for number, level in enumerate(reversed(range(self.levels - 1)), start=self.levels):
            x = self.get_submodule(f"block_{_NUMBERS[number - 1]}_up")(x) + maps[level]
            x = self.get_submodule(f"block_{_NUMBERS[number]}")(x)
        return cast(Tensor, self.dropout_last(x))


class HeadedDecoder(Decoder):
    """A decoder with a 1x1x1 head: logits (B, num_classes, D, H, W)."""

    def __init__(self, num_classes: int, filters: int, norm: Norm, dropout: float, levels: int) -> None:
        super().__init__(filters, norm, dropout, levels)
        self.head = nn.Conv3d(filters, num_classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        return cast(Tensor, self.head(self.decode(maps)))


class VNetDecoupled(Encoder):
    """One encoder; a main, a pseudo and a worst-case decoder (54,343,984 parameters with 32 filters and 16 classes).

    ``forward`` gives the main decoder's logits (B, num_classes, D, H, W); :meth:`branches` gives all three.
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
    ) -> None:
        super().__init__(in_channels, filters, norm, dropout_bottleneck, levels)
        self.decoder = HeadedDecoder(num_classes, filters, norm, dropout_last, levels)
        self.decoder_pseudo = HeadedDecoder(num_classes, filters, norm, dropout_last, levels)
        self.decoder_worst = HeadedDecoder(num_classes, filters, norm, dropout_last, levels)

    @property
    def head(self) -> nn.Module:
        """The main decoder's 1x1x1 convolution."""
        return self.decoder.head

    def features(self, x: Tensor) -> Tensor:
        """Return what the main head works on: (B, filters, D, H, W)."""
        return crop(self.decoder.decode(self.encode(x)), x)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.features(x)))

    def branches(self, x: Tensor, reversal: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the main, the pseudo and the worst decoder's logits.

        Args:
            x: (B, in_channels, D, H, W).
            reversal: lambda; what the worst decoder sends back to the encoder is multiplied by -lambda.
        """
        maps = self.encode(x)
        main, pseudo = self.decoder(maps), self.decoder_pseudo(maps)
        worst = self.decoder_worst([reverse_gradient(m, reversal) for m in maps])
        return crop(main, x), crop(pseudo, x), crop(worst, x)


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """Return ``x`` unchanged; its gradient is multiplied by ``-strength``."""
    constant = x.detach()
    return constant + strength * (constant - x)


def reversal_strength(step: int, highest: float = 0.1, length: int = 500) -> float:
    """lambda(i) = 2 hi / (1 + exp(-i/N)) - hi: from 0 towards ``highest`` with the training step i (METHODS 2.2)."""
    return 2 * highest / (1 + math.exp(-step / length)) - highest


def crop(y: Tensor, x: Tensor) -> Tensor:
    """Cut (B, C, D', H', W') to the spatial size of ``x``: undoes the encoder's padding."""
    d, h, w = x.shape[2:]
    return y[:, :, :d, :h, :w]
