"""Networks by name: every class with a ``name`` in this folder; packages add theirs by entry point."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch

from duomod.config import NetworkConfig
from duomod.errors import InputError
from duomod.networks.base import Network, NotOfferedError, Parts
from duomod.networks.decoupled import DecoupledNetwork
from duomod.networks.projected import ProjectedNetwork
from duomod.networks.vnet import VNet
from duomod.networks.vnet_published import VNetDecoupled, VNetDyCON
from duomod.plugins import Kind, files_in, load_file, only_class, own_classes

#: Forms of the V-Net whose weights are published.
_PUBLISHED: Mapping[type[Network], type[Network]] = {DecoupledNetwork: VNetDecoupled, ProjectedNetwork: VNetDyCON}


@cache
def _builtin() -> dict[str, type[Network]]:
    folder = Path(__file__).parent
    modules = [importlib.import_module(f"duomod.networks.{name}") for name in files_in(folder)]
    kinds = [kind for module in modules for kind in own_classes(module, Network) if "name" in vars(kind)]
    return {kind.name: kind for kind in kinds}


#: Names that ``--network`` accepts.
NETWORKS: Kind[Network] = Kind("network", "duomod.networks", lambda: Network, _builtin, lambda name: _builtin()[name])


def only_network(path: Path) -> type[Network]:
    """Return the network class of a Python file outside any package.

    Raises:
        InputError: no such file, it cannot be imported, or it holds not exactly one network.
    """
    return only_class(load_file(path), Network, str(path))


def plugin_network(path: Path) -> type[Network] | None:
    """The same of a file that need not hold a network: None where it does not."""
    return only_network(path) if own_classes(load_file(path), Network) else None


def build_network(
    config: NetworkConfig,
    in_channels: int,
    num_classes: int,
    form: type[Network] = Network,
    kind: type[Network] | None = None,
) -> Network:
    """Build a network, with fresh weights, in the form a method needs.

    Args:
        config: Its settings; ``config.name`` says which network.
        in_channels: Channels of the image.
        num_classes: Classes, background included.
        form: What the result is an instance of.
        kind: A network of the user's, instead of that of that name.

    Raises:
        InputError: there is no network of that name, or it does not have what the form needs.
    """
    kind = kind or NETWORKS.load(config.name)
    try:
        network = _assembled(form, Parts(kind, config, in_channels, num_classes))
    except NotOfferedError:
        able = ", ".join(name for name in _builtin() if _offers(name, form))
        raise InputError(
            f"the network {config.name} cannot be built with {form.form}, as this method needs it;"
            f" choose another ({able})"
        ) from None
    return network


def _assembled(form: type[Network], parts: Parts) -> Network:
    layout = _PUBLISHED.get(form, form) if parts.kind is VNet else form
    network = layout.assemble(parts)
    if not isinstance(network, form):
        raise NotOfferedError(form.form)
    return network


def _offers(name: str, form: type[Network]) -> bool:
    """Whether a built-in network can be built in a form; tried without memory for weights."""
    tiny = NetworkConfig(name=name, filters=4, levels=3, norm="instance")
    try:
        with torch.device("meta"):
            _assembled(form, Parts(_builtin()[name], tiny, 1, 2))
    except (NotOfferedError, InputError):
        return False
    return True
