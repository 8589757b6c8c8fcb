"""The smallest group of labelled cases that has every class."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest

from duomod.datasets import division
from duomod.datasets.division import divide
from duomod.datasets.spec import DatasetSpec


@dataclass(frozen=True)
class Labelled:
    voxels: tuple[int, ...]
    role: str = "Tr"
    labelled: bool = True


def cases_with(present: np.ndarray) -> dict[str, Labelled]:
    return {f"case_{i:04d}": Labelled((9, *map(int, row))) for i, row in enumerate(present)}


def spec_of(classes: int) -> DatasetSpec:
    names = ("background", *(f"organ_{i}" for i in range(classes)))
    return DatasetSpec(name="mine", classes=names, split={"eval": 0, "test": 0})  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(8))
def test_no_smaller_group_of_up_to_three_has_every_class(seed: int) -> None:
    present = np.random.default_rng(seed).random((14, 7)) < 0.45
    present[0] |= ~present.any(axis=0)
    order = divide(cases_with(present), spec_of(7), seed).order
    rows = [present[int(case[-4:])] for case in order]
    needed = next(n for n in range(1, 15) if np.logical_or.reduce(rows[:n]).all())
    smallest = next(
        n for n in range(1, 15) if any(np.logical_or.reduce(g).all() for g in itertools.combinations(present, n))
    )
    assert needed == smallest or smallest > 3


def test_many_kinds_of_cases_are_not_searched_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    present = np.random.default_rng(0).random((200, 60)) < 0.3
    looked: list[int] = []
    monkeypatch.setattr(division, "_first_cover", lambda kinds, missing, count, most: looked.append(count) or ())
    monkeypatch.setattr(division, "_MOST_TRIALS", 200**2)
    assert len(divide(cases_with(present), spec_of(60), 0).order) == 200
    assert looked == [1, 2]
