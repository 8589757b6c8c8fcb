from __future__ import annotations

import torch

from duomod.sampling.transforms.base import PatchInfo
from duomod.sampling.transforms.flip_x import FlipX
from duomod.seeding import generator

IMAGE, LABEL = torch.rand(2, 5, 6, 7), torch.randint(0, 4, (5, 6, 7))
PAIRS = PatchInfo(2, ((1, 2),))


def flipped(info: PatchInfo = PAIRS, **settings: str) -> tuple[torch.Tensor, torch.Tensor]:
    image, label = FlipX.model_validate(settings).draw(generator(0, "test"), info).apply(IMAGE, LABEL)
    assert label is not None
    return image, label


def test_it_mirrors_the_last_axis() -> None:
    image, label = flipped(PatchInfo(2))
    assert torch.equal(image, IMAGE.flip(3))
    assert torch.equal(label, LABEL.flip(2))


def test_sided_organs_change_places_and_others_do_not() -> None:
    _, label = flipped()
    mirrored = LABEL.flip(2)
    assert ((label == 2) == (mirrored == 1)).all()
    assert ((label == 1) == (mirrored == 2)).all()
    assert ((label == 3) == (mirrored == 3)).all()


def test_plain_leaves_the_labels_their_names() -> None:
    assert torch.equal(flipped(labels="plain")[1], LABEL.flip(2))


def test_twice_is_nothing() -> None:
    change = FlipX().draw(generator(0, "test"), PAIRS)
    image, label = change.apply(*change.apply(IMAGE, LABEL))
    assert torch.equal(image, IMAGE)
    assert label is not None
    assert torch.equal(label, LABEL)


def test_values_that_are_no_class_survive_the_exchange() -> None:
    unknown = torch.where(LABEL == 3, 255, LABEL)
    _, label = FlipX().draw(generator(0, "test"), PAIRS).apply(IMAGE, unknown)
    assert label is not None
    assert torch.equal(label == 255, unknown.flip(2) == 255)
