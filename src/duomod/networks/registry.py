"""Networks by name. A new network is one entry in ``_BUILDERS``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from duomod.config import NetworkConfig
from duomod.errors import InputError, nearest_name
from duomod.networks.vnet import VNet


def _vnet(config: NetworkConfig, in_channels: int, num_classes: int) -> nn.Module:
    return VNet(
        in_channels,
        num_classes,
        config.filters,
        config.norm,
        config.dropout_bottleneck,
        config.dropout_last,
        config.levels,
    )


_BUILDERS: dict[str, Callable[[NetworkConfig, int, int], nn.Module]] = {"vnet": _vnet}


def network_names() -> list[str]:
    """Names that ``--network`` accepts."""
    return sorted(_BUILDERS)


def build_network(config: NetworkConfig, in_channels: int, num_classes: int) -> Any:
    """Build the network ``config.name``: it offers ``forward``, ``features`` and ``head``.

    Raises:
        InputError: there is no network of that name (the nearest one is suggested).
    """
    if config.name not in _BUILDERS:
        raise InputError(
            f"unknown network '{config.name}'.{nearest_name(config.name, _BUILDERS)} Known: {', '.join(network_names())}"
        )
    return _BUILDERS[config.name](config, in_channels, num_classes)
