"""Optimizers, and learning-rate schedules as pure functions of the step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from duomod.config import OptimConfig
from duomod.methods.base import Method


def build_optimizer(method: Method, config: OptimConfig) -> torch.optim.Optimizer:
    """Build the optimizer over the method's parameter groups."""
    groups = method.parameter_groups(config)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.base_lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        groups,
        lr=config.base_lr,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        weight_decay=config.weight_decay,
    )


def learning_rate(config: OptimConfig, step: int, total_steps: int, steps_per_epoch: int) -> float:
    """Learning rate at a step; ``total_steps`` is the schedule's length, which a final epoch exceeds.

    * ``poly``: base (1 - step/total)^0.9.
    * ``poly_late``: the reference's: per epoch and one epoch behind, so that the first two share base_lr
      (docs/methods/README.md, Schedule).
    * ``one_cycle``: cosine up from base/25 over the first 30 %, cosine down to base/10,000 (Smith and Topin, 2019).
    """
    if config.schedule == "poly":
        return config.base_lr * float(max(1 - step / total_steps, 0) ** 0.9)
    if config.schedule == "poly_late":
        late = max(step // steps_per_epoch - 1, 0)
        return config.base_lr * float((1 - late * steps_per_epoch / total_steps) ** 0.9)
    rise = 0.3 * total_steps
    if step < rise:
        start, end, t = config.base_lr / 25, config.base_lr, step / rise
    else:
        start, end, t = config.base_lr, config.base_lr / 1e4, (step - rise) / max(total_steps - rise, 1)
    return end + (start - end) * (1 + math.cos(math.pi * t)) / 2


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Give an optimizer the state that one of its kind saved; torch itself takes almost anything.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: it is no such state.
    """
    numbers = [
        {name: type(value) for name, value in group.items() if isinstance(value, (float, tuple))}
        for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(saved)
    for group, own in zip(optimizer.param_groups, numbers, strict=True):
        wrong = [name for name, kind in own.items() if not isinstance(group[name], kind)]
        if wrong:
            raise ValueError(f"the optimizer's {wrong[0]} is no number")
    for parameter, remembered in optimizer.state.items():
        for name, value in remembered.items():
            fits = value is None or (isinstance(value, Tensor) and value.shape in (parameter.shape, ()))
            if not fits:
                raise ValueError(f"the optimizer's {name} is of another shape")
