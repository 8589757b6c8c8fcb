"""Optimizers, and learning-rate schedules as pure functions of the step."""

from __future__ import annotations

import math

import torch

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
