"""From a model's description to the method, with fresh weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from duomod.methods.base import Method, MethodContext, describe_networks
from duomod.methods.registry import chosen_method
from duomod.networks.builder import NetworkBuilder
from duomod.networks.registry import plugin_network
from duomod.training.model_info import ModelInfo


def with_networks(info: ModelInfo) -> ModelInfo:
    """The description with the networks that its method really builds, in words; no random number is drawn.

    Raises:
        InputError: see :func:`build_method`.
    """
    kind = plugin_network(Path(info.plugin)) if info.plugin else None
    if kind is not None:
        info = info.model_copy(update={"network": info.network.model_copy(update={"name": kind.__name__})})
    with torch.random.fork_rng(devices=[]):
        return info.model_copy(update={"networks": describe_networks(build_method(info))})


def build_method(info: ModelInfo, class_counts: Tensor | None = None) -> Method:
    """Build the method a :class:`ModelInfo` describes, with fresh weights.

    Raises:
        InputError: unknown method or network, or a network that does not have what the method needs.
    """
    plugin = Path(info.plugin) if info.plugin else None
    cls = chosen_method(info.method, plugin)
    counts = torch.ones(info.num_classes) if class_counts is None else class_counts
    kind = plugin_network(plugin) if plugin else None
    builder = NetworkBuilder(info.network, info.in_channels, info.num_classes, kind)
    context = MethodContext(info.num_classes, counts, builder, info.in_channels)
    return cls(cls.Config.preset("default", info.method_settings), context)
