"""Random disturbances of the input that methods draw themselves, from torch's global generator (seeded per step)."""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_gaussian(x: Tensor, sigma: float, clip: float) -> Tensor:
    """Return ``x`` plus clip(sigma N(0, 1), -clip, clip), the same shape."""
    return x + (sigma * torch.randn_like(x)).clamp_(-clip, clip)


def strong_intensity(x: Tensor, strength: float = 1.0) -> Tensor:
    """Change the intensities of every patch strongly; geometry, and so the label, stays as it is.

    Per patch, in this order: gamma curve, contrast about the patch's mean, brightness, Gaussian noise, and a smooth
    multiplicative field (trilinear, from a 4x4x4 grid). Amplitudes at ``strength`` 1: gamma in [0.5, 2], contrast in
    [0.5, 1.5], brightness +-0.2, noise sigma up to 0.1, field in [0.7, 1.3].

    Args:
        x: (B, C, D, H, W) in [0, 1].
        strength: In [0, 1]; 0 leaves the image as it is.

    Returns:
        The changed image, clipped to [0, 1].
    """
    batch, _, *size = x.shape

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty((batch, 1, 1, 1, 1), device=x.device, dtype=x.dtype).uniform_(low, high)

    y = x.clamp(0, 1).add(1e-6) ** torch.exp2(uniform(-strength, strength))
    mean = y.mean(dim=(1, 2, 3, 4), keepdim=True)
    y = mean + (y - mean) * uniform(1 - 0.5 * strength, 1 + 0.5 * strength)
    y = y + uniform(-0.2 * strength, 0.2 * strength)
    y = y + torch.randn_like(y) * uniform(0, 0.1 * strength)
    field = torch.empty((batch, 1, 4, 4, 4), device=x.device, dtype=x.dtype).uniform_(-1, 1)
    field = torch.nn.functional.interpolate(field, size=size, mode="trilinear", align_corners=True)
    return (y * (1 + 0.3 * strength * field)).clamp(0, 1)
