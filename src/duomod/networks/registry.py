"""Networks by name. A new network is one entry in ``_BUILDERS``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from duomod.config import NetworkConfig
from duomod.errors import InputError, nearest_name
from duomod.networks import monai_nets
from duomod.networks.unet import UNet
from duomod.networks.vnet import VNet
from duomod.networks.vnet_decoupled import VNetDecoupled
from duomod.networks.vnet_dycon import VNetDyCON
from duomod.networks.vnet_skcdf import VNetSKCDF

Builder = Callable[[NetworkConfig, int, int], nn.Module]


def _like_vnet(network: Callable[..., nn.Module]) -> Builder:
    """Builder of a network that takes the V-Net's settings."""

    def build(config: NetworkConfig, in_channels: int, num_classes: int) -> nn.Module:
        return network(
            in_channels,
            num_classes,
            config.filters,
            config.norm,
            config.dropout_bottleneck,
            config.dropout_last,
            config.levels,
        )

    return build


_BUILDERS: dict[str, Builder] = {
    "vnet": _like_vnet(VNet),
    "unet": _like_vnet(UNet),
    "resunet": monai_nets.residual_unet,
    "segresnet": monai_nets.segresnet,
    "swinunetr": monai_nets.swin_unetr,
    "vnet_decoupled": _like_vnet(VNetDecoupled),
    "vnet_dycon": _like_vnet(VNetDyCON),
    "vnet_skcdf": _like_vnet(VNetSKCDF),
}

#: Networks with parts that only their own method trains: the methods ask for them, users do not.
_OF_ONE_METHOD = {"vnet_decoupled", "vnet_dycon", "vnet_skcdf"}


def network_names() -> list[str]:
    """Names that ``--network`` accepts."""
    return sorted(_BUILDERS.keys() - _OF_ONE_METHOD)


def build_network(config: NetworkConfig, in_channels: int, num_classes: int) -> Any:
    """Build the network ``config.name``: it offers ``forward``, ``features`` and ``head``.

    Raises:
        InputError: there is no network of that name (the nearest one is suggested).
    """
    if config.name not in _BUILDERS:
        raise InputError(
            f"unknown network '{config.name}'.{nearest_name(config.name, network_names())}"
            f" Known: {', '.join(network_names())}"
        )
    return _BUILDERS[config.name](config, in_channels, num_classes)


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
