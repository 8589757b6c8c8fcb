"""From a model's description to the method, with fresh weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from duomod.methods.base import Method, MethodContext, describe_networks
from duomod.methods.registry import chosen_method
from duomod.networks.builder import NetworkBuilder
from duomod.networks.registry import plugin_network
from duomod.plugins import file_sha256
from duomod.training.model_info import ModelInfo
from duomod.training.stock_predictor import stock_predictor


def with_networks(info: ModelInfo, plugin: Path | None = None) -> ModelInfo:
    """The description with the networks that its method really builds, in words; no random number is drawn.

    Of a plug-in's model, also the plug-in's name and hash, and how it predicts without it where it can.

    Raises:
        InputError: see :func:`build_method`.
    """
    kind = plugin_network(plugin) if plugin else None
    if kind is not None:
        info = info.model_copy(update={"network": info.network.model_copy(update={"name": kind.__name__})})
    with torch.random.fork_rng(devices=[]):
        method = build_method(info, plugin=plugin)
        facts: dict[str, Any] = {"networks": describe_networks(method)}
        if plugin is not None:
            own = stock_predictor(method, info.network) if kind is None else None
            facts |= {"plugin": plugin.name, "plugin_sha256": file_sha256(plugin), "predictor": own}
    return info.model_copy(update=facts)


def build_method(info: ModelInfo, class_counts: Tensor | None = None, *, plugin: Path | None = None) -> Method:
    """Build the method a :class:`ModelInfo` describes, with fresh weights.

    Args:
        info: The description. What it says of a plug-in is not used: no file names code that is then run.
        class_counts: (C,) voxels of the labelled training data; all alike where they do not matter.
        plugin: Python file with the method or the network, if the user gave one.

    Raises:
        InputError: unknown method or network, or a network that does not have what the method needs.
    """
    cls = chosen_method(info.method, plugin)
    counts = torch.ones(info.num_classes) if class_counts is None else class_counts
    kind = plugin_network(plugin) if plugin else None
    builder = NetworkBuilder(info.network, info.in_channels, info.num_classes, kind)
    context = MethodContext(info.num_classes, counts, builder, info.in_channels)
    return cls(cls.Config.preset("default", info.method_settings), context)
