"""Any network with channel attention at its bottleneck and two decoders (docs/methods/skcdf.md, Network).

Of a V-Net the state-dict keys are the reference's (``encoder.``, ``decoder_l.out_conv9_abc`` ...).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from duomod.networks.base import Decoder, Network, Parts, crop
from duomod.networks.channel_attention import REFERENCE_MAP, AttentionBlock

#: Each decoder has a main head and an auxiliary, balanced one.
MAIN, BALANCED = "out_conv9", "out_conv9_abc"


class TwoPathNetwork(Network):
    """One encoder, attention at the bottleneck, a decoder for labelled and one for unlabelled patches.

    A V-Net of 32 filters and 16 classes has 50,917,584 parameters. ``forward`` gives the logits that inference uses,
    (B, num_classes, D, H, W): the unlabelled path's main head. Maps of any size and batches of any composition work.
    """

    form = "several decoders"

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.encoder = parts.encoder()
        self.in_channels, self.num_classes = parts.in_channels, parts.num_classes
        self.stride, self.widths, self.two_voxels = self.encoder.stride, self.encoder.widths, self.encoder.two_voxels
        self.decoder_l, self.decoder_u = (self._two_heads(parts) for _ in range(2))
        self.width = self.decoder_u.width
        self.cross_attention_local = AttentionBlock(self.widths[-1], (2, 2, 2), whole=False)
        self.cross_attention_global = AttentionBlock(self.widths[-1], REFERENCE_MAP, whole=True)

    @classmethod
    def assemble(cls, parts: Parts) -> Network:
        return cls(parts)

    @staticmethod
    def _two_heads(parts: Parts) -> Decoder:
        decoder = parts.decoder()
        decoder.add_head(parts.num_classes, MAIN)
        decoder.add_head(parts.num_classes, BALANCED)
        return decoder

    @property
    def description(self) -> str:
        return f"{self.encoder.description} with attention and 2 decoders"

    @property
    def head(self) -> nn.Module:  # type: ignore[override]  # it lies in the unlabelled path's decoder
        """The main head of the unlabelled path."""
        return self.decoder_u.get_submodule(MAIN)

    def encode_padded(self, x: Tensor) -> list[Tensor]:
        return self._attended(self.encoder.encode_padded(x), None)

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        return self.decoder_u.decode(maps)

    def labelled(self, x: Tensor, labelled: int) -> tuple[Tensor, Tensor]:
        """Main and auxiliary logits of the labelled path; the first ``labelled`` samples of ``x`` have labels."""
        main, balanced = self.decoder_l.logits(self._attended(self.encoder.encode(x), labelled), MAIN, BALANCED)
        return crop(main, x), crop(balanced, x)

    def unlabelled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Main and auxiliary logits of the unlabelled path."""
        main, balanced = self.decoder_u.logits(self.encode(x), MAIN, BALANCED)
        return crop(main, x), crop(balanced, x)

    def followers(self) -> list[tuple[nn.Module, nn.Module]]:
        """Which part follows which, in order: main heads the balanced ones, the unlabelled decoder the labelled one."""
        known, unknown = self.decoder_l, self.decoder_u
        return [
            (known.get_submodule(MAIN), known.get_submodule(BALANCED)),
            (unknown, known),
            (unknown.get_submodule(MAIN), unknown.get_submodule(BALANCED)),
        ]

    def _attended(self, maps: Sequence[Tensor], labelled: int | None) -> list[Tensor]:
        deepest = self.cross_attention_local(maps[-1], labelled)
        return [*maps[:-1], self.cross_attention_global(deepest, labelled)]
