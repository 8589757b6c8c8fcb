"""What a network is: encoder, decoder and head. Any input size is padded and cropped here, and nowhere else.

A network of one's own is one subclass of :class:`Network`; a method asks for a *form* of the chosen network, which is
also a subclass: :class:`StagedNetwork` for auxiliary outputs, others in their own files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self, cast

from torch import Tensor, nn
from torch.nn import functional

from duomod.config import NetworkConfig
from duomod.errors import DuomodError

Stride = tuple[int, int, int]


class NotOfferedError(DuomodError):
    """A network cannot be built in the form a method needs; the message says what it does not have."""


def pad_to_stride(x: Tensor, stride: Stride, two_voxels: bool = False) -> Tensor:
    """Zero-pad (B, C, D, H, W) at the end of each axis until its size is a multiple of the stride.

    Args:
        x: The image.
        stride: z, y, x.
        two_voxels: Pad the last axis by one stride more where every axis would otherwise be just one stride long.
    """
    size = x.shape[2:]
    wanted = [length + -length % step for length, step in zip(size, stride, strict=True)]
    if two_voxels and wanted == list(stride):
        wanted[-1] += stride[-1]
    padding = [p for old, new in zip(reversed(size), reversed(wanted), strict=True) for p in (0, new - old)]
    return functional.pad(x, padding) if any(padding) else x


def crop(y: Tensor, x: Tensor) -> Tensor:
    """Cut (B, C, D', H', W') to the spatial size of ``x``: undoes the encoder's padding."""
    d, h, w = x.shape[2:]
    return y[:, :, :d, :h, :w]


class Encoder(nn.Module):
    """Image (B, in_channels, D, H, W) to one map per level, from full resolution to the bottleneck."""

    in_channels: int
    #: How much coarser the last map is than the image: z, y, x.
    stride: Stride
    #: Channels of the maps, in their order.
    widths: tuple[int, ...]
    #: Whether one voxel at the bottleneck is too few to be normalised.
    two_voxels: bool = False

    @property
    def levels(self) -> int:
        """Number of maps."""
        return len(self.widths)

    @property
    def description(self) -> str:
        """What it is, in words."""
        return type(self).__name__.removesuffix("Encoder")

    def encode(self, x: Tensor) -> list[Tensor]:
        """Pad ``x`` to multiples of the stride; return its maps."""
        return self.encode_padded(pad_to_stride(x, self.stride, self.two_voxels))

    def encode_padded(self, x: Tensor) -> list[Tensor]:
        """The maps of an image whose size the stride divides."""
        raise NotImplementedError


class Decoder(nn.Module):
    """An encoder's maps to features (B, width, D, H, W) at the padded size; heads hang on it by name."""

    #: Channels of the features.
    width: int

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        """The features, after the last dropout."""
        raise NotImplementedError

    def add_head(self, num_classes: int, name: str = "head") -> None:
        """Add a 1x1x1 convolution from the features to logits, with fresh weights."""
        self.add_module(name, nn.Conv3d(self.width, num_classes, 1))

    def logits(self, maps: Sequence[Tensor], *heads: str) -> list[Tensor]:
        """Logits (B, num_classes, D, H, W) of the named heads, on the same features."""
        features = self.decode(maps)
        return [self.get_submodule(name)(features) for name in heads]


class Stages(Decoder):
    """A decoder that also gives its coarser features, for auxiliary outputs."""

    #: Channels of :meth:`stages`.
    stage_widths: tuple[int, ...]
    dropout_last: nn.Module

    def stages(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Features of every stage, the finest (at full resolution) last, before any dropout."""
        raise NotImplementedError

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        return cast(Tensor, self.dropout_last(self.stages(maps)[-1]))


class Network(Encoder, Decoder):
    """Image (B, in_channels, D, H, W) to logits (B, num_classes, D, H, W), for any D, H, W.

    A subclass sets ``in_channels``, ``num_classes``, ``stride``, ``widths``, ``width`` and ``head`` in its constructor,
    which takes (config, in_channels, num_classes), and writes :meth:`encode_padded` and :meth:`decode`.
    """

    #: What ``--network`` calls it. A base and a form of any network have none.
    name: ClassVar[str]
    #: What is special about this form, for the sentence that refuses it.
    form: ClassVar[str] = "a network"

    num_classes: int
    #: From features to logits.
    head: nn.Module

    def features(self, x: Tensor) -> Tensor:
        """What the head works on, at the image's size: (B, width, D, H, W)."""
        return crop(self.decode(self.encode(x)), x)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.features(x)))

    @classmethod
    def from_config(cls, config: NetworkConfig, in_channels: int, num_classes: int) -> Self:
        """The network with fresh weights."""
        return cls(config, in_channels, num_classes)

    @classmethod
    def encoder_alone(cls, config: NetworkConfig, in_channels: int) -> Encoder:
        """Its encoder without the rest, with fresh weights.

        Raises:
            NotOfferedError: it cannot be taken apart.
        """
        raise NotOfferedError("an encoder of its own")

    @classmethod
    def decoder_alone(cls, config: NetworkConfig) -> Decoder:
        """One more decoder of its kind, without a head, with fresh weights.

        Raises:
            NotOfferedError: it cannot be taken apart.
        """
        raise NotOfferedError("a decoder of its own")

    @classmethod
    def assemble(cls, parts: Parts) -> Network:
        """Build this form of the network that ``parts`` makes; here and where nothing has to be added: that network.

        Raises:
            NotOfferedError: it does not have what the form needs.
        """
        return parts.network()


class StagedNetwork(Stages, Network):
    """A network that also gives the features of its coarser stages."""

    form = "auxiliary outputs (features of its coarser decoder stages)"


@dataclass(frozen=True)
class Parts:
    """Makes the network the user chose, whole or in parts; every call gives fresh weights."""

    kind: type[Network]
    config: NetworkConfig
    in_channels: int
    num_classes: int

    def network(self) -> Network:
        """The whole network."""
        return self.kind.from_config(self.config, self.in_channels, self.num_classes)

    def encoder(self) -> Encoder:
        """Its encoder alone."""
        return self.kind.encoder_alone(self.config, self.in_channels)

    def decoder(self) -> Decoder:
        """One decoder alone."""
        return self.kind.decoder_alone(self.config)
