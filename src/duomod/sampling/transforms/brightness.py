"""Shift all intensities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from duomod.sampling.transforms.base import IntensityChange, PatchInfo, Transform

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True)
class Shift(IntensityChange):
    """x + shift, one shift per channel."""

    shifts: tuple[float, ...]

    def change(self, image: Tensor) -> Tensor:
        return image + image.new_tensor(self.shifts).view(-1, 1, 1, 1)


class Brightness(Transform):
    """Shift all intensities of a channel by one number."""

    name: Literal["brightness"] = "brightness"
    amount: float = Field(0.15, ge=0, le=1, description="largest shift; intensities range from 0 to 1")

    def draw(self, rng: np.random.Generator, patch: PatchInfo) -> Shift:
        return Shift(tuple((self.amount * rng.uniform(-1, 1, patch.channels)).tolist()))
