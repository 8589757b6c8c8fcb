"""Whether numbers are still numbers: neither NaN nor infinite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm


def all_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Whether every value is finite: a scalar on the tensors' device, for which nobody has waited if that is a GPU.

    Costs one pass over the values.
    """
    held = [tensor.detach() for tensor in tensors if tensor.is_floating_point() and tensor.numel()]
    if not held:
        return torch.tensor(True)
    if held[0].device.type == "cpu" and math.isfinite(get_total_norm(held, 2.0)):
        # The Euclidean norm is by far the fastest there; but large finite values overflow it.
        return torch.tensor(True)
    return get_total_norm(held, math.inf).isfinite()


def not_finite(named: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Names of the tensors that hold a value that is not finite."""
    return [name for name, tensor in named if not bool(all_finite([tensor]))]


def state_of(method: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """Everything of a training that is saved: weights, buffers and what the optimizer remembers."""
    yield from method.named_parameters()
    yield from method.named_buffers()
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    for parameter, remembered in optimizer.state.items():
        for kind, value in remembered.items():
            if isinstance(value, Tensor):
                yield f"{kind} of {names.get(id(parameter), 'a parameter')}", value
