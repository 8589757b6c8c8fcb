"""What holds for every transform of the list, those to come included: nothing here names one."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from duomod.sampling.augment import apply, draw, own_generators
from duomod.sampling.settings import TransformList, ViewConfig
from duomod.sampling.transforms.base import Change, IntensityChange, PatchInfo, SpatialChange, Transform
from duomod.sampling.transforms.registry import TRANSFORMS, builtin_names
from duomod.seeding import generator

NAMES = builtin_names()
INFO = PatchInfo(channels=2, sided_pairs=((1, 2),))


def always(name: str, **parameters: Any) -> Transform:
    return TRANSFORMS.load(name)(name=name, probability=1.0, **parameters)


def patch(channels: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    return torch.rand((channels, 8, 9, 10), generator=source), torch.randint(4, (8, 9, 10), generator=source)


def change(name: str, seed: int = 0, info: PatchInfo = INFO) -> Change:
    return always(name).draw(generator(seed, "test"), info)


@pytest.mark.parametrize("name", NAMES)
class TestEveryTransform:
    def test_its_default_changes_a_patch(self, name: str) -> None:
        image, label = patch()
        image[0, 0, 0, 0] = 1.0
        assert not torch.equal(change(name).apply(image, label)[0], image)

    def test_the_same_generator_draws_the_same(self, name: str) -> None:
        assert change(name) == change(name)
        assert hash(change(name)) == hash(change(name))

    def test_what_was_drawn_is_frozen_data_that_can_be_kept_and_applied_again(self, name: str) -> None:
        drawn = change(name)
        assert dataclasses.is_dataclass(drawn)
        assert type(drawn).__dataclass_params__.frozen
        kept = pickle.loads(pickle.dumps(drawn))
        first, second = drawn.apply(*patch()), kept.apply(*patch())
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])

    def test_the_patch_it_is_given_stays_as_it_is(self, name: str) -> None:
        image, label = patch()
        change(name).apply(image, label)
        assert torch.equal(image, patch()[0])
        assert torch.equal(label, patch()[1])

    def test_shapes_and_types_stay(self, name: str) -> None:
        for channels in (1, 3):
            image, label = patch(channels)
            changed, moved = change(name, info=PatchInfo(channels)).apply(image, label)
            assert (changed.shape, changed.dtype) == (image.shape, torch.float32)
            assert (moved.shape, moved.dtype) == (label.shape, torch.int64)
            assert changed.isfinite().all()

    def test_without_a_label_the_image_is_the_same_and_there_is_still_no_label(self, name: str) -> None:
        image, label = patch()
        alone, nothing = change(name).apply(image, None)
        assert nothing is None
        assert torch.equal(alone, change(name).apply(image, label)[0])

    def test_labels_take_no_value_they_did_not_have(self, name: str) -> None:
        image, label = patch()
        label = torch.where(label == 2, 1, label)
        for seed in range(5):
            _, moved = change(name, seed, PatchInfo(2)).apply(image, label)
            assert set(moved.unique().tolist()) <= {0, 1, 3}

    def test_a_spatial_change_moves_all_channels_alike_and_an_intensity_change_no_label(self, name: str) -> None:
        image, label = patch()
        drawn = change(name)
        assert TRANSFORMS.load(name).known_geometry == isinstance(drawn, SpatialChange | IntensityChange)
        if isinstance(drawn, SpatialChange):
            twin, _ = drawn.apply(image[:1].expand(2, -1, -1, -1), None)
            assert torch.equal(twin[0], twin[1])
        elif isinstance(drawn, IntensityChange):
            assert drawn.apply(image, label)[1] is label

    def test_a_channel_changes_the_same_whatever_the_others_hold(self, name: str) -> None:
        image, _ = patch()
        other = torch.stack([image[0], torch.zeros_like(image[1])])
        assert torch.equal(change(name).apply(image, None)[0][0], change(name).apply(other, None)[0][0])

    def test_a_list_brings_it_back_into_range(self, name: str) -> None:
        image, label = patch()
        for seed in range(5):
            changed, _ = apply(image, label, [change(name, seed)])
            assert 0 <= changed.min() <= changed.max() <= 1

    def test_probability_zero_never_draws_and_a_half_does_half_the_time(self, name: str) -> None:
        never, half = (TRANSFORMS.load(name)(name=name, probability=p) for p in (0.0, 0.5))
        assert not any(draw([never], own_generators(0, "test", step, 0), INFO) for step in range(20))
        assert 70 <= sum(bool(draw([half], own_generators(0, "test", step, 0), INFO)) for step in range(200)) <= 130

    def test_other_transforms_around_it_do_not_shift_its_draws(self, name: str) -> None:
        alone = draw([always(name)], own_generators(3, "test", 5, 1), INFO)
        others = [always(other) for other in NAMES if other != name]
        index = len(others) // 2
        among = draw([*others[:index], always(name), *others[index:]], own_generators(3, "test", 5, 1), INFO)
        assert len(among) == len(NAMES)
        assert among[index] == alone[0]

    def test_it_can_be_written_down_and_read_again(self, name: str) -> None:
        config = TransformList(transforms=(always(name),))
        written = config.model_dump(mode="json")
        assert written["transforms"][0]["name"] == name
        assert TransformList.model_validate(written) == config

    def test_each_parameter_says_what_it_means(self, name: str) -> None:
        cls = TRANSFORMS.load(name)
        assert cls.__doc__
        assert all(field.description for key, field in cls.model_fields.items() if key != "name")


class TestLists:
    def test_the_order_of_the_list_is_the_order_of_application(self) -> None:
        image, _ = patch()
        black, shift = always("white_to_black"), always("brightness", amount=1.0)
        image[:] = 1.0
        source = own_generators(0, "test", 0, 0)
        ((offset, _),) = (draw([shift], source, INFO)[0].shifts,)
        black_first = apply(image, None, draw([black, shift], source, INFO), keep_range=False)[0]
        shift_first = apply(image, None, draw([shift, black], source, INFO), keep_range=False)[0]
        assert black_first[0].unique().tolist() == pytest.approx([offset])
        assert shift_first[0].unique().tolist() == pytest.approx([1 + offset])

    def test_a_transform_listed_twice_draws_twice(self) -> None:
        first, second = draw([always("gamma"), always("gamma")], own_generators(0, "test", 0, 0), INFO)
        assert first != second
        (alone,) = draw([always("gamma")], own_generators(0, "test", 0, 0), INFO)
        assert first == alone

    def test_seed_step_sample_and_purpose_each_change_what_is_drawn(self) -> None:
        places = [(0, "a", 0, 0), (1, "a", 0, 0), (0, "b", 0, 0), (0, "a", 1, 0), (0, "a", 0, 1)]
        drawn = {draw([always("gamma")], own_generators(*place), INFO) for place in places}
        assert len(drawn) == len(places)

    def test_a_range_is_kept_only_where_asked_for(self) -> None:
        image = torch.ones(1, 4, 4, 4)
        bright = draw([always("brightness", amount=1.0)], own_generators(1, "test", 0, 0), PatchInfo())
        beyond = apply(image, None, bright, keep_range=False)[0]
        assert beyond.max() > 1 or beyond.min() < 1
        assert torch.equal(apply(image, None, bright)[0], beyond.clamp(0, 1))

    def test_a_view_refuses_a_transform_whose_movement_is_not_known(self) -> None:
        class Elastic(Transform):
            known_geometry = False
            name: str = "elastic"

            def draw(self, rng: np.random.Generator, patch: PatchInfo) -> Change:
                raise AssertionError("refused before anything is drawn")

        with pytest.raises(ValueError, match="elastic: cannot be used in a view"):
            ViewConfig(transforms=(Elastic(),))
