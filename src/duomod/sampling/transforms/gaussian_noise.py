"""Add Gaussian noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import torch
from pydantic import Field, model_validator

from duomod.sampling.transforms.base import IntensityChange, PatchInfo, Transform

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True)
class Noise(IntensityChange):
    """x + clip(sigma n, -clip, clip), n from N(0, 1) anew for each voxel, by a seed of its own."""

    sigmas: tuple[float, ...]
    clip: float | None
    seed: int

    def change(self, image: Tensor) -> Tensor:
        source = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(image.shape, generator=source) * torch.tensor(self.sigmas).view(-1, 1, 1, 1)
        return image + (noise if self.clip is None else noise.clamp_(-self.clip, self.clip)).to(image)


class GaussianNoise(Transform):
    """Add Gaussian noise whose standard deviation is drawn per channel."""

    name: Literal["gaussian_noise"] = "gaussian_noise"
    sigma: float = Field(0.05, ge=0, description="largest standard deviation; intensities range from 0 to 1")
    sigma_from: float = Field(0.0, ge=0, description="smallest standard deviation")
    clip: float | None = Field(None, ge=0, description="no voxel's noise is larger than this; none: no limit")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.sigma_from > self.sigma:
            raise ValueError(f"sigma_from {self.sigma_from} is larger than sigma {self.sigma}")
        return self

    def draw(self, rng: np.random.Generator, patch: PatchInfo) -> Noise:
        sigmas = tuple(rng.uniform(self.sigma_from, self.sigma, patch.channels).tolist())
        return Noise(sigmas, self.clip, int(rng.integers(2**62)))
