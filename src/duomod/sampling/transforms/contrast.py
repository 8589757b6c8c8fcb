"""Stretch or compress intensities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from duomod.sampling.transforms.base import IntensityChange, PatchInfo, Transform

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True)
class Gain(IntensityChange):
    """centre + gain (x - centre), one gain per channel."""

    gains: tuple[float, ...]
    about: Literal["middle", "mean"]

    def change(self, image: Tensor) -> Tensor:
        gain = image.new_tensor(self.gains).view(-1, 1, 1, 1)
        centre = 0.5 if self.about == "middle" else image.mean(dim=(1, 2, 3), keepdim=True)
        return (image - centre) * gain + centre


class Contrast(Transform):
    """Stretch or compress the intensities of a channel about a centre."""

    name: Literal["contrast"] = "contrast"
    amount: float = Field(0.3, ge=0, lt=1, description="the factor lies between 1 - amount and 1 + amount")
    about: Literal["middle", "mean"] = Field(
        "middle", description="what stays: middle, the intensity 0.5; mean, the patch's mean"
    )

    def draw(self, rng: np.random.Generator, patch: PatchInfo) -> Gain:
        return Gain(tuple((1 + self.amount * rng.uniform(-1, 1, patch.channels)).tolist()), self.about)
