"""What a metric is: its description, which result files carry, and how it is computed from a pair of masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from duomod.evaluation.metrics.surfaces import BoolArray, Spacing, SurfaceDistances, surface_distances


@dataclass(frozen=True)
class Metric:
    """What a metric is called, what it means and how it is shown.

    Attributes:
        name: How it is asked for.
        column: Prefix of its columns in a result file: ``<column>_Class1``.
        title: Head of its column in tables, with the unit.
        kind: ``overlap`` (0 to 1), ``distance`` (0 upwards) or ``volume`` (ml).
        higher_is_better: None where neither is (a signed difference).
        scale: Factor for display (100 for per cent).
        decimals: Decimals in tables.
        meaning: The definition in words, written into result files.
    """

    name: str
    column: str
    title: str
    kind: Literal["overlap", "distance", "volume"]
    higher_is_better: bool | None
    scale: float
    decimals: int
    meaning: str


def overlap(name: str, column: str, meaning: str) -> Metric:
    """Describe a metric from 0 to 1 where more is better; shown in per cent."""
    return Metric(name, column, f"{column} (%)", "overlap", True, 100.0, 2, meaning)


def distance(name: str, column: str, meaning: str) -> Metric:
    """Describe a distance in mm, where less is better."""
    return Metric(name, column, f"{column} (mm)", "distance", False, 1.0, 3, meaning)


@dataclass(frozen=True)
class Pair:
    """Two masks of one class on their common box; surfaces are only looked for when a metric asks for them.

    Attributes:
        prediction: Mask (D, H, W).
        truth: Mask of the same shape.
        spacing_mm: Voxel size along z, y, x.
        tolerance_mm: NSD tolerance of the class.
        predicted: Voxels of the prediction.
        true: Voxels of the truth.
        common: Voxels of both.
    """

    prediction: BoolArray
    truth: BoolArray
    spacing_mm: Spacing
    tolerance_mm: float
    predicted: int
    true: int
    common: int

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in ml."""
        return float(np.prod(self.spacing_mm)) / 1000.0

    @cached_property
    def distances(self) -> SurfaceDistances:
        """Distances between the two surfaces; both masks must have voxels."""
        return surface_distances(self.prediction, self.truth, self.spacing_mm)


@dataclass(frozen=True)
class Measure:
    """A metric and its formula.

    Attributes:
        metric: The description.
        compute: Value of a pair. Overlaps and distances are asked only where both masks have voxels (the empty-class
            policy answers otherwise), volumes wherever one has.
        asd_variant: Where set, the metric is what ``asd`` means under this name of ``--asd``.
    """

    metric: Metric
    compute: Callable[[Pair], float]
    asd_variant: str | None = None
