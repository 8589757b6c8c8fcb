"""Rotate and scale about the patch's centre."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from pydantic import Field

from duomod.sampling.transforms.base import PatchInfo, SpatialChange, Transform
from duomod.sampling.transforms.geometry import Geometry, as_matrix


class Affine(Transform):
    """Rotate and scale about the patch's centre, in voxels of the working grid."""

    name: Literal["affine"] = "affine"
    probability: float = Field(0.3, ge=0, le=1, description="share of the patches that are moved")
    rotate_degrees: float = Field(10.0, ge=0, le=180, description="largest rotation about each axis")
    scale: float = Field(0.1, ge=0, lt=1, description="largest relative zoom, the same for all axes")

    def draw(self, rng: np.random.Generator, patch: PatchInfo) -> SpatialChange:
        angles = np.radians(rng.uniform(-1, 1, 3) * self.rotate_degrees)
        zoom = 1 + rng.uniform(-1, 1) * self.scale
        return SpatialChange(Geometry(as_matrix(_rotation(angles) / zoom)))


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Turns about x, then y, then z, by angles in radians."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        i, j = [a for a in range(3) if a != axis]
        turn[i, i] = turn[j, j] = math.cos(angle)
        turn[i, j], turn[j, i] = -math.sin(angle), math.sin(angle)
        matrix = turn @ matrix
    return matrix
