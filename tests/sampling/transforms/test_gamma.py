from __future__ import annotations

import math

import pytest
import torch

from duomod.sampling.transforms.base import PatchInfo
from duomod.sampling.transforms.gamma import Gamma, Power
from duomod.seeding import generator

IMAGE = torch.rand(2, 4, 5, 6)


def test_amount_zero_changes_nothing() -> None:
    assert torch.equal(Gamma(amount=0).draw(generator(0, "test"), PatchInfo(2)).change(IMAGE), IMAGE)


def test_each_channel_is_raised_to_a_power_of_its_own() -> None:
    changed = Power((math.log(2), math.log(0.5))).change(IMAGE)
    torch.testing.assert_close(changed[0], IMAGE[0] ** 2)
    torch.testing.assert_close(changed[1], IMAGE[1].sqrt())


def test_black_and_white_stay_and_what_lies_beyond_is_clipped() -> None:
    image = torch.tensor([-0.5, 0.0, 1.0, 1.5]).view(1, 1, 1, 4)
    assert Power((0.4,)).change(image).flatten().tolist() == [0, 0, 1, 1]


def test_powers_are_as_often_above_one_as_below() -> None:
    logarithms = [Gamma(amount=0.7).draw(generator(i, "test"), PatchInfo()).logarithms[0] for i in range(500)]
    assert max(logarithms) == pytest.approx(0.7, abs=0.01)
    assert min(logarithms) == pytest.approx(-0.7, abs=0.01)
    assert abs(sum(logarithms) / 500) < 0.05
