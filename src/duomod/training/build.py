"""From a model's description to the method, with fresh weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from duomod.methods.base import Method, MethodContext
from duomod.methods.registry import chosen_method
from duomod.networks.builder import NetworkBuilder
from duomod.networks.registry import plugin_network
from duomod.training.model_info import ModelInfo


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
