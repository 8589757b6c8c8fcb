"""Turn the largest intensity into the smallest (SLC-Net's published code)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from duomod.sampling.transforms.base import IntensityChange, PatchInfo, Transform

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True)
class Blackened(IntensityChange):
    """0 where x is 1."""

    def change(self, image: Tensor) -> Tensor:
        return image.where(image != 1, 0.0)


class WhiteToBlack(Transform):
    """Turn the intensity 1 into 0."""

    name: Literal["white_to_black"] = "white_to_black"

    def draw(self, rng: np.random.Generator, patch: PatchInfo) -> Blackened:
        return Blackened()
