"""Cutting boxes and cubes out of patches and putting them into others, without a host-device synchronisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def random_boxes(like: Tensor, smallest: float, largest: float) -> Tensor:
    """One random box per patch, as a mask that is True inside.

    Args:
        like: (B, ..., D, H, W); only its batch, spatial size and device count.
        smallest: Edge of the box as a share of the patch's edge; drawn once per patch, the same for all axes.
        largest: Its upper bound.

    Returns:
        (B, 1, D, H, W) bool.
    """
    batch, size, device = len(like), like.shape[-3:], like.device
    share = smallest + (largest - smallest) * torch.rand(batch, device=device)
    inside = torch.ones((batch, 1, 1, 1, 1), dtype=torch.bool, device=device)
    for axis, length in enumerate(size):
        edge = (share * length).floor()
        start = (torch.rand(batch, device=device) * (length - edge + 1)).floor()
        position = torch.arange(length, device=device)
        hit = (position >= start[:, None]) & (position < (start + edge)[:, None])
        shape = [batch, 1, 1, 1, 1]
        shape[2 + axis] = length
        inside = inside & hit.view(shape)
    return inside


def cube_grid(size: Sequence[int], wanted: Sequence[int]) -> tuple[int, int, int]:
    """Number of cubes per axis: ``wanted``, or the next smaller number that divides the axis evenly."""
    d, h, w = (
        next(n for n in range(min(most, length), 0, -1) if length % n == 0)
        for length, most in zip(size, wanted, strict=True)
    )
    return d, h, w


def to_cubes(x: Tensor, grid: Sequence[int]) -> Tensor:
    """Cut (B, C, D, H, W) into cubes: (B, N, C, d, h, w) with N = nd nh nw, in z, y, x order."""
    b, c, *size = x.shape
    nd, nh, nw = grid
    d, h, w = (length // n for length, n in zip(size, grid, strict=True))
    cubes = x.reshape(b, c, nd, d, nh, h, nw, w).permute(0, 2, 4, 6, 1, 3, 5, 7)
    return cubes.reshape(b, nd * nh * nw, c, d, h, w)


def from_cubes(cubes: Tensor, grid: Sequence[int]) -> Tensor:
    """Put cubes (B, N, C, d, h, w) back together: (B, C, D, H, W). The inverse of :func:`to_cubes`."""
    b, _, c, d, h, w = cubes.shape
    nd, nh, nw = grid
    x = cubes.reshape(b, nd, nh, nw, c, d, h, w).permute(0, 4, 1, 5, 2, 6, 3, 7)
    return x.reshape(b, c, nd * d, nh * h, nw * w)


def exchange(cubes: Tensor, source: Tensor) -> Tensor:
    """Take every cube from another patch of the batch, at the same location.

    Args:
        cubes: (B, N, C, d, h, w).
        source: (B, N) long: for each location a permutation of the batch.
    """
    index = source.view(*source.shape, 1, 1, 1, 1).expand_as(cubes)
    return cubes.gather(0, index)
