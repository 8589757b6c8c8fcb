"""Bend intensities by a power."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from duomod.sampling.transforms.base import IntensityChange, PatchInfo, Transform

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True)
class Power(IntensityChange):
    """x ** e^u, one u per channel; intensities outside [0, 1] are clipped first."""

    logarithms: tuple[float, ...]

    def change(self, image: Tensor) -> Tensor:
        return image.clamp(0, 1).pow(image.new_tensor(self.logarithms).exp().view(-1, 1, 1, 1))


class Gamma(Transform):
    """Raise the intensities of a channel to a power."""

    name: Literal["gamma"] = "gamma"
    amount: float = Field(0.5, ge=0, le=3, description="the power lies between e^-amount and e^amount")

    def draw(self, rng: np.random.Generator, patch: PatchInfo) -> Power:
        return Power(tuple((self.amount * rng.uniform(-1, 1, patch.channels)).tolist()))
