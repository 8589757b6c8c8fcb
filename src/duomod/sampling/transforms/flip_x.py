"""Mirror left to right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from duomod.sampling.transforms.base import PatchInfo, SpatialChange, Transform
from duomod.sampling.transforms.geometry import Geometry

if TYPE_CHECKING:
    import numpy as np


class FlipX(Transform):
    """Mirror left to right."""

    name: Literal["flip_x"] = "flip_x"
    probability: float = Field(0.5, ge=0, le=1, description="share of the patches that are mirrored")
    labels: Literal["swap_sides", "plain"] = Field(
        "swap_sides", description="swap_sides also exchanges the labels of sided organs"
    )

    def draw(self, rng: np.random.Generator, patch: PatchInfo) -> SpatialChange:
        swapped = patch.sided_pairs if self.labels == "swap_sides" else ()
        return SpatialChange(Geometry(((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), swapped))
