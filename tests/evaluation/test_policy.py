"""Empty masks: every policy does what its sentence says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from duomod.errors import InputError
from duomod.evaluation.metrics import select_metrics
from duomod.evaluation.policy import POLICIES, OrganStatus, get_policy, organ_status
from duomod.evaluation.scoring import score_classes

SPACING = (3.0, 4.0, 12.0)
SHAPE = (4, 3, 1)
DIAGONAL_MM = math.sqrt(12**2 + 12**2 + 12**2)


def values(policy: str, in_prediction: bool, in_truth: bool) -> dict[str, float]:
    prediction, truth = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    prediction[0, 0, 0], truth[1, 1, 0] = in_prediction, in_truth
    chosen = select_metrics(("dice", "asd", "nsd", "volume_difference"))
    (only,) = score_classes(prediction, truth, SPACING, 2, chosen, get_policy(policy), [1.0])
    return only.values


def same(found: dict[str, float], overlap: float, distance: float) -> bool:
    pairs = ((found["Dice"], overlap), (found["NSD"], overlap), (found["ASD"], distance))
    return all(math.isclose(a, b) or (math.isnan(a) and math.isnan(b)) for a, b in pairs)


@pytest.mark.parametrize(
    ("policy", "both", "one"),
    [
        ("default", (math.nan, math.nan), (0.0, DIAGONAL_MM)),
        ("reward_absence", (1.0, 0.0), (0.0, DIAGONAL_MM)),
        ("reference", (1.0, 0.0), (0.0, math.nan)),
        ("dhc", (0.01, 0.0), (0.0, 128.0)),
    ],
)
def test_policies(policy: str, both: tuple[float, float], one: tuple[float, float]) -> None:
    assert same(values(policy, False, False), *both)
    assert same(values(policy, True, False), *one)
    assert same(values(policy, False, True), *one)


def test_every_policy_is_tested() -> None:
    assert set(POLICIES) == {"default", "reward_absence", "reference", "dhc"}


def test_a_missed_organ_never_improves_the_default_distance() -> None:
    assert values("default", False, True)["ASD"] > values("default", True, True)["ASD"]


def test_a_missed_organ_still_has_a_volume_difference() -> None:
    assert values("default", False, True)["VolumeDifference"] == pytest.approx(-0.144)


@pytest.mark.parametrize(
    ("counts", "status"),
    [
        ((3, 4, 2), OrganStatus.DETECTED),
        ((3, 4, 0), OrganStatus.MISPLACED),
        ((0, 4, 0), OrganStatus.MISSED),
        ((3, 0, 0), OrganStatus.FALSE),
        ((0, 0, 0), OrganStatus.ABSENT),
    ],
)
def test_status(counts: tuple[int, int, int], status: OrganStatus) -> None:
    assert organ_status(*counts) is status


def test_an_unknown_policy_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match="Did you mean 'reference'"):
        get_policy("refrence")
