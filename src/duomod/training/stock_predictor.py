"""What predicts, where it is made of duomod's own networks: built again from their names, without the method's code.

A plug-in's method trains as it likes; most predict with one network of duomod's, or the mean of two. Such a model needs
its plug-in for training only.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from duomod.config import NetworkConfig
from duomod.errors import DuomodError
from duomod.methods.base import Method
from duomod.methods.shared.two_networks import MeanLogits
from duomod.networks.base import Network, StagedNetwork
from duomod.networks.decoupled import DecoupledNetwork
from duomod.networks.projected import ProjectedNetwork
from duomod.networks.registry import build_network
from duomod.networks.two_paths import TwoPathNetwork

#: Filters of a network that any computer can build, whichever it is; all kinds can have so many.
_ORDINARY = 48

Form = Literal["plain", "staged", "decoupled", "projected", "two_paths"]

_FORMS: dict[Form, type[Network]] = {
    "plain": Network,
    "staged": StagedNetwork,
    "decoupled": DecoupledNetwork,
    "projected": ProjectedNetwork,
    "two_paths": TwoPathNetwork,
}


class StockNetwork(BaseModel):
    """A network of the registry in one of its forms: the weights that a checkpoint holds under ``key``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    form: Form
    in_channels: int = Field(ge=1, le=512)


class StockPredictor(BaseModel):
    """One network, or several whose logits are averaged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    networks: Annotated[tuple[StockNetwork, ...], Field(min_length=1, max_length=2)]

    def build(self, config: NetworkConfig, num_classes: int) -> tuple[nn.Module, dict[str, nn.Module]]:
        """What predicts, with fresh weights, and its networks by their keys."""
        built = {
            one.key: build_network(config, one.in_channels, num_classes, _FORMS[one.form]) for one in self.networks
        }
        modules: dict[str, nn.Module] = dict(built)
        parts = [modules[one.key] for one in self.networks]
        return (parts[0] if len(parts) == 1 else MeanLogits(*parts)), modules


def stock_predictor(method: Method, config: NetworkConfig) -> StockPredictor | None:
    """How a method's predictor is built without the method; None where it is made of anything else. Draws randomly."""
    predictor = method.predictor()
    parts = [predictor.a, predictor.b] if type(predictor) is MeanLogits else [predictor]
    networks = [_stock_network(part, method, config) for part in parts]
    known = tuple(network for network in networks if network is not None)
    return StockPredictor(networks=known) if len(known) == len(parts) else None


def _stock_network(module: nn.Module, method: Method, config: NetworkConfig) -> StockNetwork | None:
    keys = [key for key, published in method.published_modules().items() if published is module]
    if not keys or not isinstance(module, Network):
        return None
    for form, kind in _FORMS.items():
        try:
            stock = build_network(config, module.in_channels, module.num_classes, kind)
        except (DuomodError, RuntimeError):  # not offered in this form, or by no network of this name
            continue
        if _same(module, stock):
            return StockNetwork(key=keys[0], form=form, in_channels=module.in_channels)
    return None


def _same(module: nn.Module, stock: nn.Module) -> bool:
    """Whether two modules compute the same but for their weights: the same classes, settings and shapes all through."""
    ours, theirs = list(module.modules()), list(stock.modules())
    hooks = any(part._forward_hooks or part._forward_pre_hooks for part in ours)
    shapes = [{name: value.shape for name, value in one.state_dict().items()} for one in (module, stock)]
    return (
        not hooks
        and [*map(type, ours)] == [*map(type, theirs)]
        and repr(module) == repr(stock)
        and shapes[0] == shapes[1]
    )


def built_within(file_bytes: int, config: NetworkConfig) -> bool:
    """Whether a network of these settings can have its weights in a file of so many bytes.

    A hostile description may ask for any number of filters. Weights grow with their square, so a network of an ordinary
    size tells what a large one takes before its memory is asked for.
    """
    if config.filters <= _ORDINARY:
        return True
    with torch.random.fork_rng(devices=[]):
        network = build_network(config.model_copy(update={"filters": _ORDINARY}), 1, 2)
    count = sum(parameter.numel() for parameter in network.parameters())
    # A byte for each four weights is far less than any number format takes.
    return count * (config.filters / _ORDINARY) ** 2 / 4 <= file_bytes
