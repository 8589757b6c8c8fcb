"""Where a patch is cut and how it is read: only the patch's voxels are touched on disk."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Index3 = tuple[int, int, int]


def corner_around(
    voxel: Index3, shape: Index3, patch: Index3, offset: tuple[float, float, float] = (0.5, 0.5, 0.5)
) -> Index3:
    """Lower corner (voxels, z y x) of the patch that has a voxel at a relative offset, moved inside the volume.

    Args:
        voxel: z y x.
        shape: Volume, voxels.
        patch: Patch, voxels.
        offset: Where in the patch the voxel lies, per axis from 0 to 1; 0.5 is the centre. On an axis shorter than the
            patch the volume is centred in it instead, so that the corner is negative.
    """
    return _triple(
        min(max(v - min(int(o * p), p - 1), 0), s - p) if s >= p else -((p - s) // 2)
        for v, s, p, o in zip(voxel, shape, patch, offset, strict=True)
    )


def random_corner(rng: np.random.Generator, shape: Index3, patch: Index3, margin: int = 0) -> Index3:
    """Uniformly random lower corner inside the volume.

    Args:
        rng: Source of randomness.
        shape: Volume, voxels, z y x.
        patch: Patch, the same.
        margin: On axes shorter than the patch, pad by this many voxels more on both sides and cut anywhere in that
            (the reference pads by floor((patch - size) / 2) + 3).
    """
    corner = []
    for size, length in zip(shape, patch, strict=True):
        pad = (length - size) // 2 + margin if size < length else 0
        room = size + 2 * pad - length
        corner.append(int(rng.integers(room + 1)) - pad if room > 0 else -pad)
    return _triple(corner)


def read_patch(
    volume: NDArray[np.generic], corner: Index3, patch: Index3
) -> tuple[NDArray[np.generic], list[tuple[int, int]]]:
    """Copy a patch's part inside a volume (D, H, W) or (C, D, H, W); nothing else of it is read.

    Returns:
        The voxels inside, and the padding (before, after) per axis that brings them to the patch's size.
    """
    channels = volume.ndim - len(patch)
    slices, padding = [slice(None)] * channels, [(0, 0)] * channels
    for start, size, length in zip(corner, volume.shape[channels:], patch, strict=True):
        low, high = max(start, 0), min(start + length, size)
        slices.append(slice(low, high))
        padding.append((low - start, start + length - high))
    return np.array(volume[tuple(slices)]), padding


def _triple(values: Iterable[int]) -> Index3:
    z, y, x = values
    return int(z), int(y), int(x)
