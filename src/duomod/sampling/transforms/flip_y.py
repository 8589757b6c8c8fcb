"""Mirror front to back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from duomod.sampling.transforms.base import PatchInfo, SpatialChange, Transform
from duomod.sampling.transforms.geometry import Geometry

if TYPE_CHECKING:
    import numpy as np


class FlipY(Transform):
    """Mirror front to back."""

    name: Literal["flip_y"] = "flip_y"
    probability: float = Field(0.5, ge=0, le=1, description="share of the patches that are mirrored")

    def draw(self, rng: np.random.Generator, patch: PatchInfo) -> SpatialChange:
        return SpatialChange(Geometry(((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))))
