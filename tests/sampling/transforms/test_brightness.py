from __future__ import annotations

import torch

from duomod.sampling.transforms.base import PatchInfo
from duomod.sampling.transforms.brightness import Brightness
from duomod.seeding import generator

IMAGE = torch.rand(2, 4, 5, 6)


def test_amount_zero_changes_nothing() -> None:
    assert torch.equal(Brightness(amount=0).draw(generator(0, "test"), PatchInfo(2)).change(IMAGE), IMAGE)


def test_each_channel_is_shifted_by_one_number_of_its_own_within_the_amount() -> None:
    shifts = []
    for seed in range(300):
        drawn = Brightness(amount=0.2).draw(generator(seed, "test"), PatchInfo(2))
        difference = drawn.change(IMAGE) - IMAGE
        for channel, shift in zip(difference, drawn.shifts, strict=True):
            torch.testing.assert_close(channel, torch.full_like(channel, shift), atol=1e-6, rtol=0)
        shifts.append(drawn.shifts)
    low, high = torch.tensor(shifts).amin(0), torch.tensor(shifts).amax(0)
    assert ((low >= -0.2) & (low < -0.19) & (high <= 0.2) & (high > 0.19)).all()
    assert all(first != second for first, second in shifts)
