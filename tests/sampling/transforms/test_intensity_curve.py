from __future__ import annotations

import pytest
import torch

from duomod.sampling.transforms.base import PatchInfo
from duomod.sampling.transforms.intensity_curve import Curve, IntensityCurve, curve_table
from duomod.seeding import generator

RAMP = torch.linspace(0, 1, 64).view(1, 1, 1, 64)


def test_bend_zero_changes_nothing() -> None:
    torch.testing.assert_close(Curve((0.0,)).change(RAMP), RAMP, atol=1e-4, rtol=0)


@pytest.mark.parametrize("bend", [0.5, 0.75])
def test_a_curve_never_falls_and_keeps_both_ends(bend: float) -> None:
    table = curve_table(bend)
    assert (table.diff() >= 0).all()
    torch.testing.assert_close(table[[0, -1]], torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize(("bend", "x"), [(0.5, 0.25), (0.75, 0.25), (0.75, 0.6), (0.5, 0.5)])
def test_points_of_the_curves(bend: float, x: float) -> None:
    """Each coordinate of the cubic is sorted by itself, as the published code does."""
    t = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    end, inner = t**3 - (1 - t) ** 3, 3 * t * (1 - t) * (2 * t - 1)  # (1, 1) and -(1, 1); (b, -b) and -(b, -b)
    horizontal, vertical = (end + bend * inner).sort().values, (end - bend * inner).sort().values
    index = int((horizontal / 2 + 0.5 >= x).nonzero()[0])
    expected = float(vertical[index] / 2 + 0.5)
    assert float(Curve((bend,)).change(torch.full((1, 1, 1, 1), x))) == pytest.approx(expected, abs=2e-4)


def test_each_bend_is_drawn_as_often_and_for_each_channel_anew() -> None:
    transform = IntensityCurve(bends=(0.1, 0.5, 0.75))
    drawn = [transform.draw(generator(i, "test"), PatchInfo(2)).bends for i in range(600)]
    for channel in (0, 1):
        counts = [sum(bends[channel] == bend for bends in drawn) for bend in (0.1, 0.5, 0.75)]
        assert counts == pytest.approx([200, 200, 200], abs=40)
    assert any(first != second for first, second in drawn)
