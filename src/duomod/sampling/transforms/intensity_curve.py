"""Bend intensities by a Bezier curve (Models Genesis; SLC-Net)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import Field

from duomod.sampling.transforms.base import IntensityChange, PatchInfo, Transform

if TYPE_CHECKING:
    from torch import Tensor

_ENTRIES = 4096


@dataclass(frozen=True)
class Curve(IntensityChange):
    """Each channel through the curve of its bend; intensities outside [0, 1] are clipped first."""

    bends: tuple[float, ...]

    def change(self, image: Tensor) -> Tensor:
        position = image.clamp(0, 1) * (_ENTRIES - 1)
        below = position.long().clamp(max=_ENTRIES - 2)
        tables = [curve_table(bend).to(image) for bend in self.bends]
        bent = [torch.lerp(t.take(b), t.take(b + 1), p - b) for t, b, p in zip(tables, below, position, strict=True)]
        return torch.stack(bent)


class IntensityCurve(Transform):
    """Bend the intensities of a channel by a monotone curve that keeps 0 and 1."""

    name: Literal["intensity_curve"] = "intensity_curve"
    probability: float = Field(0.6, ge=0, le=1, description="share of the patches that are bent")
    bends: tuple[float, ...] = Field(
        (0.5, 0.75),
        min_length=1,
        description="one is drawn, b: cubic Bezier curve with points (-1, -1), (-b, b), (b, -b), (1, 1); 0: none",
    )

    def draw(self, rng: np.random.Generator, patch: PatchInfo) -> Curve:
        return Curve(tuple(self.bends[i] for i in rng.integers(len(self.bends), size=patch.channels)))


@cache
def curve_table(bend: float) -> Tensor:
    """The curve as y at evenly spaced x in [0, 1]: 10,000 points of it, both coordinates sorted."""
    points = np.array([(-1, -1), (-bend, bend), (bend, -bend), (1, 1)], dtype=np.float64)
    t = np.linspace(0.0, 1.0, 10_000)
    powers = np.stack([math.comb(3, i) * t ** (3 - i) * (1 - t) ** i for i in range(4)])
    x, y = (np.sort(axis) for axis in points.T @ powers)
    return torch.from_numpy(np.interp(np.linspace(-1, 1, _ENTRIES), x, y) / 2 + 0.5).float()
