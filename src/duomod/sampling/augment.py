"""Augmentation of patches. Drawing (:func:`draw`) is apart from doing (:func:`apply`), so that it can be replayed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from duomod.config import AugmentConfig


@dataclass(frozen=True)
class Augmentation:
    """One drawn augmentation. ``affine`` maps output to input coordinates (3x3, axes x y z); noise has its own seed."""

    flip_x: bool = False
    flip_y: bool = False
    affine: tuple[tuple[float, float, float], ...] | None = None
    gain: float = 1.0
    shift: float = 0.0
    gamma: float = 1.0
    noise: float = 0.0
    noise_seed: int = 0


def draw(rng: np.random.Generator, config: AugmentConfig) -> Augmentation:
    """Draw an augmentation. Every number is drawn whether used or not, so that settings do not shift other draws."""
    flips = rng.random(2)
    use_affine = rng.random() < config.affine_probability
    angles = np.radians(rng.uniform(-1, 1, 3) * config.rotate_degrees)
    zoom = 1 + rng.uniform(-1, 1) * config.scale
    gain, shift, gamma, noise = rng.uniform(-1, 1, 4)
    strength = config.intensity
    return Augmentation(
        flip_x=bool(config.flip_x != "none" and flips[0] < 0.5),
        flip_y=bool(config.flip_y and flips[1] < 0.5),
        affine=_rotation(angles, 1 / zoom) if use_affine else None,
        gain=1 + 0.3 * strength * gain,
        shift=0.15 * strength * shift,
        gamma=math.exp(0.5 * strength * gamma),
        noise=0.05 * strength * max(noise, 0.0),
        noise_seed=int(rng.integers(2**62)),
    )


def _rotation(angles: np.ndarray, scale: float) -> tuple[tuple[float, float, float], ...]:
    matrix = np.eye(3) * scale
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        i, j = [a for a in range(3) if a != axis]
        turn[i, i] = turn[j, j] = math.cos(angle)
        turn[i, j], turn[j, i] = -math.sin(angle), math.sin(angle)
        matrix = turn @ matrix
    return tuple((float(a), float(b), float(c)) for a, b, c in matrix)


def apply(
    image: Tensor, label: Tensor | None, drawn: Augmentation, sided_pairs: tuple[tuple[int, int], ...] = ()
) -> tuple[Tensor, Tensor | None]:
    """Apply an augmentation to one patch.

    Args:
        image: (D, H, W) float32 in [0, 1]; stays there.
        label: (D, H, W) int64, or None.
        drawn: What :func:`draw` returned.
        sided_pairs: Class indices that change places when the patch is mirrored left to right.
    """
    if drawn.affine is not None:
        image, label = _warp(image, label, drawn.affine)
    axes = [axis for axis, flip in ((2, drawn.flip_x), (1, drawn.flip_y)) if flip]
    if axes:
        image = image.flip(axes)
        label = None if label is None else label.flip(axes)
    if drawn.flip_x and label is not None and sided_pairs:
        label = _swap(label, sided_pairs)
    if (drawn.gain, drawn.shift, drawn.gamma, drawn.noise) != (1.0, 0.0, 1.0, 0.0):
        image = ((image - 0.5) * drawn.gain + 0.5 + drawn.shift).clamp(0, 1).pow(drawn.gamma)
        if drawn.noise > 0:
            source = torch.Generator().manual_seed(drawn.noise_seed)
            image = (image + drawn.noise * torch.randn(image.shape, generator=source)).clamp(0, 1)
    return image.contiguous(), None if label is None else label.contiguous()


def _swap(label: Tensor, pairs: tuple[tuple[int, int], ...]) -> Tensor:
    table = torch.arange(max(int(label.max()), max(map(max, pairs))) + 1)
    for a, b in pairs:
        table[a], table[b] = b, a
    return table[label]


def _warp(
    image: Tensor, label: Tensor | None, affine: tuple[tuple[float, float, float], ...]
) -> tuple[Tensor, Tensor | None]:
    """Rotate and scale about the patch's centre, in voxels (isotropic in the working grid's voxels)."""
    half = [(length - 1) / 2 for length in reversed(image.shape)]
    # grid_sample works in coordinates from -1 to 1 per axis; scale so that the matrix acts on voxels.
    matrix = torch.tensor(affine, dtype=torch.float32)
    for i in range(3):
        for j in range(3):
            matrix[i, j] *= max(half[j], 0.5) / max(half[i], 0.5)
    theta = torch.cat([matrix, torch.zeros(3, 1)], dim=1)[None]
    grid = functional.affine_grid(theta, [1, 1, *image.shape], align_corners=True)
    warped = functional.grid_sample(image[None, None], grid, padding_mode="border", align_corners=True)[0, 0]
    if label is None:
        return warped, None
    moved = functional.grid_sample(
        label[None, None].float(), grid, mode="nearest", padding_mode="border", align_corners=True
    )
    return warped, moved[0, 0].long()
