"""Forms of the V-Net whose weights are published: the same networks, laid out so that the state-dict keys agree.

Published checkpoints say nothing of their network but its weights; here it is read off them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from torch import Tensor, nn

from duomod.config import NetworkConfig
from duomod.networks.base import Network, Parts
from duomod.networks.decoupled import DecoupledNetwork
from duomod.networks.projected import ProjectedNetwork
from duomod.networks.vnet import VNet, VNetEncoder


class VNetDecoupled(VNetEncoder, DecoupledNetwork):
    """V-Net with three decoders (54,343,984 parameters with 32 filters and 16 classes).

    The keys are ``block_one...``, ``decoder.``, ``decoder_pseudo.``, ``decoder_worst.``.
    """

    def __init__(self, config: NetworkConfig, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, config.filters, config.norm, config.dropout_bottleneck, config.levels)
        self.add_decoders(lambda: VNet.decoder_alone(config), num_classes)

    @property
    def description(self) -> str:
        return "VNet with 3 decoders"

    @classmethod
    def assemble(cls, parts: Parts) -> Network:
        return cls.from_config(parts.config, parts.in_channels, parts.num_classes)


class VNetDyCON(VNet, ProjectedNetwork):
    """V-Net with two heads and a projection (61,249,056 parameters with 32 filters and 16 classes).

    ``out_conv`` is the head of a signed distance map, which nothing supervises: it is not trained. The
    segmentation head is ``out_conv2``. The pyramid's dropout is the bottleneck's.
    """

    def __init__(self, config: NetworkConfig, in_channels: int, num_classes: int) -> None:
        dropouts = config.dropout_bottleneck, config.dropout_last
        super().__init__(in_channels, num_classes, config.filters, config.norm, *dropouts, config.levels)
        self.out_conv.requires_grad_(False)
        self.out_conv2 = nn.Conv3d(config.filters, num_classes, 1)
        self.add_projection(config.norm, config.dropout_bottleneck)

    @classmethod
    def from_config(cls, config: NetworkConfig, in_channels: int, num_classes: int) -> Self:
        return cls(config, in_channels, num_classes)

    @property
    def description(self) -> str:
        return "VNet with projection"

    @property
    def head(self) -> nn.Module:  # type: ignore[override]  # ``out_conv`` is another head
        """The segmentation head."""
        return self.out_conv2

    @classmethod
    def assemble(cls, parts: Parts) -> Network:
        return cls.from_config(parts.config, parts.in_channels, parts.num_classes)


def settings_from_state(state: dict[str, Tensor]) -> dict[str, int | str | float]:
    """Read a V-Net's settings off a state dict, for published checkpoints that carry none.

    Returns:
        ``in_channels``, ``num_classes``, ``filters``, ``levels``, ``norm`` (``batch`` if it has running statistics).

    Raises:
        KeyError: it is not a V-Net's state dict.
    """
    first = state["block_one.conv.0.weight"]
    levels = 1 + sum(key.endswith("_dw.conv.0.weight") for key in state)
    return {
        "in_channels": first.shape[1],
        "filters": first.shape[0],
        "num_classes": state["out_conv.weight"].shape[0],
        "levels": levels,
        "norm": "batch" if "block_one.conv.1.running_mean" in state else "instance",
    }


def is_vnet(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is a V-Net's, in any form."""
    return any(f"{prefix}block_one.conv.0.weight" in state for prefix in ("", "encoder."))


def published_as_vnet(content: Mapping[str, Mapping[str, Tensor]]) -> tuple[str, dict[str, Tensor]]:
    """Say which method a published checkpoint is of, and give its first network's weights under the V-Net's names.

    The weights are for :func:`duomod.networks.vnet.settings_from_state`. Methods with plain V-Nets cannot be told
    apart: two networks count as ``cps``, student and teacher as ``uamt``.

    Args:
        content: State dicts by key (``A``, ``B`` or ``model``, ``ema_model``).
    """
    state = dict(next(iter(content.values())))
    if "decoder_pseudo.head.weight" in state:
        return "dst", {**state, "out_conv.weight": state["decoder.head.weight"]}
    if "decoder_l.out_conv9.weight" in state:
        encoder = {key.removeprefix("encoder."): value for key, value in state.items()}
        return "skcdf", {**encoder, "out_conv.weight": state["decoder_l.out_conv9.weight"]}
    if "projection.0.weight" in state:
        return "dycon", state
    if "A" not in content:
        return ("uamt" if "ema_model" in content else "supervised"), state
    inputs = [weights["block_one.conv.0.weight"].shape[1] for weights in content.values()]
    return ("slcnet" if len(set(inputs)) > 1 else "cps"), state
