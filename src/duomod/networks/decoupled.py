"""Any network with one encoder and three decoders (docs/methods/dst.md, Network)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from duomod.networks.base import Decoder, Network, Parts, crop


class DecoupledNetwork(Network):
    """One encoder; a main, a pseudo and a worst-case decoder, each with a head.

    ``forward`` gives the main decoder's logits (B, num_classes, D, H, W); :meth:`branches` gives all three.
    """

    form = "several decoders"
    decoder: Decoder
    decoder_pseudo: Decoder
    decoder_worst: Decoder

    def add_decoders(self, make: Callable[[], Decoder], num_classes: int) -> None:
        """Add the three decoders, with fresh weights."""
        self.num_classes = num_classes
        for name in ("decoder", "decoder_pseudo", "decoder_worst"):
            decoder = make()
            decoder.add_head(num_classes)
            self.add_module(name, decoder)
        self.width = self.decoder.width

    @property
    def head(self) -> nn.Module:  # type: ignore[override]  # it lies in the main decoder
        """The main decoder's 1x1x1 convolution."""
        return self.decoder.get_submodule("head")

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        return self.decoder.decode(maps)

    def branches(self, x: Tensor, reversal: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the main, the pseudo and the worst decoder's logits.

        Args:
            x: (B, in_channels, D, H, W).
            reversal: lambda; what the worst decoder sends back to the encoder is multiplied by -lambda.
        """
        maps = self.encode(x)
        (main,), (pseudo,) = (decoder.logits(maps, "head") for decoder in (self.decoder, self.decoder_pseudo))
        (worst,) = self.decoder_worst.logits([reverse_gradient(m, reversal) for m in maps], "head")
        return crop(main, x), crop(pseudo, x), crop(worst, x)

    @classmethod
    def assemble(cls, parts: Parts) -> Network:
        return _Assembled(parts)


class _Assembled(DecoupledNetwork):
    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.encoder = parts.encoder()
        self.in_channels, self.stride, self.widths = parts.in_channels, self.encoder.stride, self.encoder.widths
        self.two_voxels = self.encoder.two_voxels
        self.add_decoders(parts.decoder, parts.num_classes)

    @property
    def description(self) -> str:
        return f"{self.encoder.description} with 3 decoders"

    def encode_padded(self, x: Tensor) -> list[Tensor]:
        return self.encoder.encode_padded(x)


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """Return ``x`` unchanged; its gradient is multiplied by ``-strength``."""
    constant = x.detach()
    return constant + strength * (constant - x)


def reversal_strength(step: int, highest: float = 0.1, length: int = 500) -> float:
    """lambda(i) = 2 hi / (1 + exp(-i/N)) - hi: from 0 towards ``highest`` with the training step i.

    See docs/methods/dst.md, Network.
    """
    return 2 * highest / (1 + math.exp(-step / length)) - highest
