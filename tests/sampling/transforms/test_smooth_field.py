from __future__ import annotations

import torch

from duomod.sampling.transforms.base import PatchInfo
from duomod.sampling.transforms.smooth_field import Shading, SmoothField
from duomod.seeding import generator

ONES = torch.ones(2, 24, 24, 24)


def test_amount_zero_changes_nothing() -> None:
    assert torch.equal(SmoothField(amount=0).draw(generator(0, "test"), PatchInfo(2)).change(ONES), ONES)


def test_the_factor_stays_in_its_range_and_differs_per_channel() -> None:
    field = Shading(0.3, 4, seed=0).change(ONES)
    assert 0.7 <= field.min() < 0.8
    assert 1.2 < field.max() <= 1.3
    assert not torch.allclose(field[0], field[1])


def test_neighbours_are_changed_nearly_alike() -> None:
    field = Shading(0.3, 4, seed=0).change(ONES)
    # 24 voxels span three pieces, each a difference of 0.6 at most
    assert max(float(field.diff(dim=axis).abs().max()) for axis in (1, 2, 3)) <= 0.6 * 3 / 23 + 1e-6


def test_it_is_linear_between_two_points() -> None:
    field = Shading(0.3, 2, seed=0).change(ONES)
    for axis in (1, 2, 3):
        torch.testing.assert_close(
            field.diff(n=2, dim=axis), torch.zeros(1).expand_as(field.diff(n=2, dim=axis)), atol=1e-5, rtol=0
        )
