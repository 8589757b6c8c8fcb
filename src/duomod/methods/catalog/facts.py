"""Facts about a method: counted on the meta device, measured beforehand, never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from duomod.config import NetworkConfig
from duomod.methods.base import Method, MethodContext, describe_networks
from duomod.methods.catalog.measurements import stored_measurements
from duomod.methods.registry import METHODS
from duomod.networks.builder import NetworkBuilder


@dataclass(frozen=True)
class MethodFacts:
    """One line of ``duomod methods``.

    ``trained`` and ``total`` count parameters of the whole method, teachers included in ``total`` only.
    ``relative_time`` and ``relative_memory`` are those of a training step, supervised being 1; None: not measured.
    """

    name: str
    title: str
    paper: str
    year: int
    networks: str
    trained: int
    total: int
    relative_time: float | None
    relative_memory: float | None
    summary: str


def build(name: str, network: NetworkConfig, classes: int) -> Method:
    """A method with fresh weights, on the current default device."""
    cls = METHODS.load(name)
    builder = NetworkBuilder(network, 1, classes)
    return cls(cls.Config.preset("default"), MethodContext(classes, torch.ones(classes, dtype=torch.float64), builder))


def facts(names: Sequence[str], network: NetworkConfig | None = None, classes: int = 16) -> list[MethodFacts]:
    """Facts of methods with a network (default: the full V-Net); no memory is spent on weights.

    Raises:
        InputError: unknown method.
    """
    costs = stored_measurements().relative
    rows = []
    for name in names:
        with torch.device("meta"):
            method = build(name, network or NetworkConfig(), classes)
        cost = costs.get(name)
        rows.append(
            MethodFacts(
                name=name,
                title=method.info.title,
                paper=method.info.paper,
                year=method.info.year,
                networks=describe_networks(method),
                trained=sum(p.numel() for p in method.parameters() if p.requires_grad),
                total=sum(p.numel() for p in method.parameters()),
                relative_time=None if cost is None else cost.time,
                relative_memory=None if cost is None else cost.memory,
                summary=method.info.summary,
            )
        )
    return rows
