"""Sliding-window inference (docs/methods/README.md, Sliding window)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from duomod.inference.settings import Blending

Index3 = tuple[int, int, int]


def window_starts(size: int, patch: int, overlap: float) -> list[int]:
    """Starts of the windows along one axis; the last window is shifted back to the border."""
    stride = max(1, int(patch * (1 - overlap)))
    count = math.ceil(max(size - patch, 0) / stride) + 1
    return [max(min(i * stride, size - patch), 0) for i in range(count)]


def window_weights(patch: Index3, blending: Blending) -> Tensor:
    """Weight of each voxel of a window (D, H, W): one, or a Gaussian of sigma = patch / 8 as nnU-Net and MONAI use."""
    if blending == "uniform":
        return torch.ones(patch)
    weights = torch.ones(1)
    for length in patch:
        position = torch.arange(length, dtype=torch.float32) - (length - 1) / 2
        line = torch.exp(-0.5 * (position / (length / 8)) ** 2)
        weights = weights[..., None] * line
    # A voxel seen only by a window's corner must not be divided by nearly nothing.
    return weights[0].clamp(min=1e-3)


@torch.inference_mode()
def predict_probabilities(
    model: nn.Module,
    volume: NDArray[np.float32] | Tensor,
    patch: Index3,
    *,
    overlap: float,
    blending: Blending,
    batch_size: int = 1,
    amp_dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Class probabilities of a whole volume, the weighted mean over overlapping windows.

    Softmax is taken per window (not again, for a model with the attribute ``outputs_probabilities = True``). Axes
    shorter than the patch are zero-padded at their end. Needs 4 (C + 2) bytes per voxel of the (padded) volume on the
    device: the sum, the weights and the volume, in float32 whatever ``amp_dtype``; besides what a forward pass needs.

    Args:
        model: (B, 1, D, H, W) to (B, C, D, H, W), in eval mode.
        volume: (D, H, W) float32 in [0, 1].
        patch: Window in voxels, z y x.
        overlap: Share of a window that its neighbour covers too, in [0, 1).
        blending: See :func:`window_weights`.
        batch_size: Windows per forward pass.
        amp_dtype: Autocast type, or None for float32.
        device: Where to compute and where the result lies.

    Returns:
        (C, D, H, W) float32.
    """
    device = torch.device(device)
    image = torch.as_tensor(volume, dtype=torch.float32).to(device)
    size = image.shape
    padding = [p for s, n in zip(reversed(size), reversed(patch), strict=True) for p in (0, max(n - s, 0))]
    if any(padding):
        image = nn.functional.pad(image, padding)
    weights = window_weights(patch, blending).to(device)
    ready = getattr(model, "outputs_probabilities", False)
    total: Tensor | None = None
    seen = torch.zeros(image.shape, device=device)
    along_z, along_y, along_x = (window_starts(s, n, overlap) for s, n in zip(image.shape, patch, strict=True))
    starts = list(product(along_z, along_y, along_x))
    for group in _groups(starts, batch_size):
        regions = [tuple(slice(a, a + n) for a, n in zip(start, patch, strict=True)) for start in group]
        windows = torch.stack([image[region] for region in regions])[:, None]
        with torch.autocast(device.type, dtype=amp_dtype or torch.bfloat16, enabled=amp_dtype is not None):
            output = model(windows)
        probabilities = output.float() if ready else output.float().softmax(1)
        if total is None:
            total = torch.zeros((probabilities.shape[1], *image.shape), device=device)
        for region, window in zip(regions, probabilities, strict=True):
            if blending == "uniform":
                total[(slice(None), *region)] += window
            else:
                total[(slice(None), *region)] += window * weights
            seen[region] += weights
    assert total is not None
    total /= seen
    return total[:, : size[0], : size[1], : size[2]]


def _groups(starts: list[Index3], count: int) -> Iterator[list[Index3]]:
    for first in range(0, len(starts), count):
        yield starts[first : first + count]
