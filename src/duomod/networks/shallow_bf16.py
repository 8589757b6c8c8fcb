"""A defect of torch on the CPU, and how networks are kept safe from it."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn


class ShallowSafeConv3d(nn.Conv3d):
    """A convolution that leaves autocast where its input is two voxels deep; see :func:`guard_shallow_convolutions`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the base class's name)
        if input.shape[2] == 2 and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(input.float())
        return super().forward(input)


@cache
def shallow_bf16_is_broken() -> bool:
    """Whether this torch computes garbage for the bf16 weight gradient of a 3x3x3 convolution of depth 2 on the CPU.

    Seen in torch 2.13 (relative error of one and more, or NaN). Probed once per process against float32.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        convolution = nn.Conv3d(64, 64, 3, padding=1)
        x = torch.randn(1, 64, 2, 4, 4)
    gradients = []
    for enabled in (False, True):
        convolution.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            y = convolution(x)
        y.float().square().sum().backward()
        assert convolution.weight.grad is not None
        gradients.append(convolution.weight.grad.clone())
    exact, tested = gradients
    error = (tested - exact).norm() / exact.norm()
    return not bool(error < 0.1)


def guard_shallow_convolutions(module: nn.Module, device: torch.device, dtype: torch.dtype | None) -> None:
    """Make a network's 3x3x3 convolutions safe for bf16 on the CPU, where this torch needs it."""
    if device.type != "cpu" or dtype is not torch.bfloat16 or not shallow_bf16_is_broken():
        return
    for child in module.modules():
        if type(child) is nn.Conv3d and child.kernel_size == (3, 3, 3):
            # Only the class changes: parameters, state-dict keys and copies of the network stay as they are.
            child.__class__ = ShallowSafeConv3d
