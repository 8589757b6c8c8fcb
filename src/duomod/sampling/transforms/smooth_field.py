"""Multiply by a smooth random field, as an uneven coil of an MR scanner does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch.nn import functional

from duomod.sampling.transforms.base import IntensityChange, PatchInfo, Transform

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True)
class Shading(IntensityChange):
    """x (1 + amount f); f in [-1, 1] is linear between points drawn by a seed of its own, one field per channel."""

    amount: float
    points: int
    seed: int

    def change(self, image: Tensor) -> Tensor:
        source = torch.Generator().manual_seed(self.seed)
        coarse = 2 * torch.rand((1, len(image), *(self.points,) * 3), generator=source) - 1
        field = functional.interpolate(coarse, size=image.shape[1:], mode="trilinear", align_corners=True)[0]
        return image * (1 + self.amount * field.to(image))


class SmoothField(Transform):
    """Multiply by a smooth random field."""

    name: Literal["smooth_field"] = "smooth_field"
    amount: float = Field(0.3, ge=0, lt=1, description="the factor lies between 1 - amount and 1 + amount")
    points: int = Field(4, ge=2, le=32, description="points per axis between which the field is linear")

    def draw(self, rng: np.random.Generator, patch: PatchInfo) -> Shading:
        return Shading(self.amount, self.points, int(rng.integers(2**62)))
