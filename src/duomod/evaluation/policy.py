"""What a metric is worth when an organ is absent from the truth, from the prediction, or from both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from duomod.errors import InputError, unknown_name


class OrganStatus(StrEnum):
    """What became of one organ in one case."""

    DETECTED = "detected"  # in both, and they overlap
    MISPLACED = "misplaced"  # in both, without a common voxel
    MISSED = "missed"  # in the truth only
    FALSE = "false"  # in the prediction only
    ABSENT = "absent"  # in neither


def organ_status(predicted_voxels: int, true_voxels: int, common_voxels: int) -> OrganStatus:
    """Return the status that belongs to three voxel counts."""
    if predicted_voxels and true_voxels:
        return OrganStatus.DETECTED if common_voxels else OrganStatus.MISPLACED
    if true_voxels:
        return OrganStatus.MISSED
    return OrganStatus.FALSE if predicted_voxels else OrganStatus.ABSENT


@dataclass(frozen=True)
class EmptyPolicy:
    """A rule for empty masks. NaN means: this value is left out of every mean (and counted).

    Attributes:
        both_overlap: Dice and its like (0 to 1) when the organ is in neither mask.
        both_distance: Distances (mm) and volume differences (ml) in that case.
        one_distance: Distances (mm) when exactly one mask is empty; ``"diagonal"`` is the image's diagonal in mm,
            the largest distance that could have occurred. Dice and its like are 0 then, in every policy.
    """

    name: str
    meaning: str
    both_overlap: float
    both_distance: float
    one_distance: float | Literal["diagonal"]

    def distance_when_one_is_empty(self, diagonal_mm: float) -> float:
        """Return the distance that stands for a missed or false organ."""
        return diagonal_mm if self.one_distance == "diagonal" else self.one_distance


DEFAULT_POLICY = "default"

POLICIES: dict[str, EmptyPolicy] = {
    policy.name: policy
    for policy in (
        EmptyPolicy(
            "default",
            "organ in neither mask: excluded from all means and counted; in one only: overlap 0, distance = image"
            " diagonal in mm, counted as missed or false",
            both_overlap=math.nan,
            both_distance=math.nan,
            one_distance="diagonal",
        ),
        EmptyPolicy(
            "reward_absence",
            "organ in neither mask: overlap 1, distance 0; in one only: overlap 0, distance = image diagonal in mm",
            both_overlap=1.0,
            both_distance=0.0,
            one_distance="diagonal",
        ),
        EmptyPolicy(
            "reference",
            "as the published DuoMod-Net evaluation: organ in neither mask: overlap 1, distance 0; in one only: overlap"
            " 0, distance excluded, so that missing an organ improves the mean distance",
            both_overlap=1.0,
            both_distance=0.0,
            one_distance=math.nan,
        ),
        EmptyPolicy(
            "dhc",
            "as the published DHC evaluation: organ in neither mask: Dice 1 of 100, distance 0; in one only: overlap 0,"
            " distance 128 voxels",
            both_overlap=0.01,
            both_distance=0.0,
            one_distance=128.0,
        ),
    )
}


def get_policy(name: str) -> EmptyPolicy:
    """Return a policy by name.

    Raises:
        InputError: there is no policy of that name; the nearest one is suggested.
    """
    if name not in POLICIES:
        raise InputError(unknown_name("empty-class policy", name, POLICIES))
    return POLICIES[name]
