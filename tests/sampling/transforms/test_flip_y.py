from __future__ import annotations

import torch

from duomod.sampling.transforms.base import PatchInfo
from duomod.sampling.transforms.flip_y import FlipY
from duomod.seeding import generator

IMAGE, LABEL = torch.rand(2, 5, 6, 7), torch.randint(0, 4, (5, 6, 7))
CHANGE = FlipY().draw(generator(0, "test"), PatchInfo(2, ((1, 2),)))


def test_it_mirrors_the_middle_axis_and_exchanges_no_sides() -> None:
    image, label = CHANGE.apply(IMAGE, LABEL)
    assert torch.equal(image, IMAGE.flip(2))
    assert label is not None
    assert torch.equal(label, LABEL.flip(1))


def test_twice_is_nothing() -> None:
    image, label = CHANGE.apply(*CHANGE.apply(IMAGE, LABEL))
    assert torch.equal(image, IMAGE)
    assert label is not None
    assert torch.equal(label, LABEL)
