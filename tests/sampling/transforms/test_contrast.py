from __future__ import annotations

import torch

from duomod.sampling.transforms.base import PatchInfo
from duomod.sampling.transforms.contrast import Contrast, Gain
from duomod.seeding import generator

IMAGE = torch.rand(2, 4, 5, 6)


def test_amount_zero_changes_nothing() -> None:
    for about in ("middle", "mean"):
        drawn = Contrast(amount=0, about=about).draw(generator(0, "test"), PatchInfo(2))
        torch.testing.assert_close(drawn.change(IMAGE), IMAGE, atol=1e-6, rtol=0)


def test_distances_from_the_centre_are_multiplied() -> None:
    image = torch.tensor([0.25, 0.5, 1.0]).view(1, 1, 1, 3)
    assert Gain((2.0,), "middle").change(image).flatten().tolist() == [0.0, 0.5, 1.5]
    mean = image.mean()
    torch.testing.assert_close(Gain((0.5,), "mean").change(image), mean + 0.5 * (image - mean))


def test_each_channel_keeps_a_mean_of_its_own() -> None:
    drawn = Contrast(amount=0.5, about="mean").draw(generator(0, "test"), PatchInfo(2))
    torch.testing.assert_close(drawn.change(IMAGE).mean((1, 2, 3)), IMAGE.mean((1, 2, 3)))
    assert drawn.gains[0] != drawn.gains[1]


def test_gains_fill_the_range() -> None:
    gains = [Contrast(amount=0.3).draw(generator(i, "test"), PatchInfo()).gains[0] for i in range(300)]
    assert 0.7 <= min(gains) < 0.71
    assert 1.29 < max(gains) <= 1.3
