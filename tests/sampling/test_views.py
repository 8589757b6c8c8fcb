"""Views: made by their own draws, of the same patches; predictions and labels carried between them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from duomod.sampling.augment import own_generators
from duomod.sampling.batch import Batch, View
from duomod.sampling.settings import ViewConfig, strong_view, usual_view
from duomod.sampling.transforms.geometry import Geometry
from duomod.sampling.views import with_views

PAIRS = ((1, 2),)
FLIP_X, FLIP_Y = {"name": "flip_x", "probability": 1}, {"name": "flip_y", "probability": 1}
TURN = {"name": "affine", "probability": 1, "rotate_degrees": 30, "scale": 0.2}


def batch(patches: int = 2) -> Batch:
    source = torch.Generator().manual_seed(0)
    blocks = torch.randint(4, (patches, 4, 4, 4), generator=source)
    label = blocks.repeat_interleave(5, 1).repeat_interleave(5, 2).repeat_interleave(5, 3)
    image = torch.rand((patches, 2, 20, 20, 20), generator=source)
    return Batch(image, label, torch.rand((patches, 2, 20, 20, 20), generator=source))


def scores() -> torch.Tensor:
    return torch.rand((2, 4, 20, 20, 20), generator=torch.Generator().manual_seed(1))


def views(of: Batch, seed: int = 0, step: int = 0, **entries: list[Any]) -> dict[str, View]:
    configs = {name: ViewConfig(transforms=transforms) for name, transforms in entries.items()}
    return dict(with_views(of, configs, seed, step, PAIRS).views)


class TestMaking:
    def test_the_weak_view_is_the_unlabelled_patch_itself_also_on_another_device(self) -> None:
        plain = batch()
        seen = with_views(plain, {"weak": usual_view("weak")}, 0)
        assert seen.views["weak"].image is plain.image_u
        moved = seen.to(torch.device("meta"))
        assert moved.views["weak"].image is moved.image_u
        assert moved.views["weak"].geometry == (Geometry(), Geometry())

    def test_strong_views_change_intensities_only_and_each_patch_and_view_in_its_own_way(self) -> None:
        plain = batch()
        same = Batch(plain.image_l, plain.label_l, plain.unlabelled()[:1].expand(2, -1, -1, -1, -1))
        made = with_views(same, {name: usual_view(name) for name in ("strong", "strong2")}, 0).views
        images = [image for view in made.values() for image in view.image]
        for i, first in enumerate(images):
            assert 0 <= first.min() <= first.max() <= 1
            assert all((first - second).abs().mean() > 0.01 for second in images[:i])
        assert all(view.geometry == (Geometry(), Geometry()) for view in made.values())

    def test_a_strong_view_of_no_strength_is_the_patch(self) -> None:
        made = with_views(batch(), {"strong": strong_view(0.0)}, 0).views["strong"]
        torch.testing.assert_close(made.image, batch().unlabelled(), atol=1e-6, rtol=0)

    def test_a_view_depends_on_seed_step_and_its_name_not_on_the_other_views(self) -> None:
        config = strong_view()
        alone = with_views(batch(), {"strong": config}, 1, 5).views["strong"].image
        among = with_views(batch(), {"weak": ViewConfig(), "other": config, "strong": config}, 1, 5).views
        assert torch.equal(alone, among["strong"].image)
        assert not torch.equal(alone, among["other"].image)
        for seed, step in ((2, 5), (1, 6)):
            assert not torch.equal(alone, with_views(batch(), {"strong": config}, seed, step).views["strong"].image)

    def test_a_view_of_all_has_labelled_patches_first_each_drawn_as_if_alone(self) -> None:
        plain = batch()
        config = ViewConfig.model_validate({"transforms": ["gamma"], "of": "all"})
        both = with_views(plain, {"v": config}, 0).views["v"].image
        unlabelled = with_views(plain, {"v": ViewConfig.model_validate({"transforms": ["gamma"]})}, 0).views["v"].image
        labelled = with_views(Batch(plain.image_l, plain.label_l, None), {"v": config}, 0).views["v"].image
        assert torch.equal(both, torch.cat([labelled, unlabelled]))
        assert len(both) == 4

    def test_a_view_of_all_without_transforms_is_both_parts(self) -> None:
        plain = batch()
        made = with_views(plain, {"v": ViewConfig(of="all")}, 0).views["v"]
        assert torch.equal(made.image, torch.cat([plain.image_l, plain.unlabelled()]))

    def test_a_name_that_nobody_describes_is_explained(self) -> None:
        with pytest.raises(ValueError, match=r"no view is usually called 'stronger'.*Usual: weak, strong, strong2"):
            usual_view("stronger")


class TestCarrying:
    def test_intensities_move_nothing(self) -> None:
        made = views(batch(), weak=[], strong=["gamma"])
        label, given = batch().label_l, scores()
        assert made["weak"].carry_label(label, made["strong"]) is label
        assert made["weak"].carry_scores(given, made["strong"]) is given

    def test_a_label_goes_with_its_image(self) -> None:
        """An image that shows its label: carried over, the label is what the moved image shows."""
        label = torch.where(batch().label_l == 2, 3, batch().label_l)
        shown = (label == 3).float()[:, None]
        made = views(Batch(shown, label, shown), weak=[], moved=[TURN, FLIP_X])
        carried = made["weak"].carry_label(label, made["moved"])
        clear = (made["moved"].image[:, 0] - 0.5).abs() > 0.45
        assert clear.float().mean() > 0.4
        assert torch.equal((carried == 3)[clear], (made["moved"].image[:, 0] > 0.5)[clear])

    def test_flips_carry_exactly_there_and_back_and_exchange_sided_organs(self) -> None:
        made = views(batch(), weak=[], moved=[FLIP_X, FLIP_Y])
        label, given = batch().label_l, scores()
        there = made["weak"].carry_label(label, made["moved"])
        assert torch.equal(there == 1, (label == 2).flip(2, 3))
        assert torch.equal(there == 3, (label == 3).flip(2, 3))
        assert torch.equal(made["moved"].carry_label(there, made["weak"]), label)
        moved = made["weak"].carry_scores(given, made["moved"])
        assert torch.equal(moved[:, [0, 2, 1, 3]], given.flip(3, 4))
        assert torch.equal(made["moved"].carry_scores(moved, made["weak"]), given)

    def test_a_turned_label_map_comes_back_but_for_edges(self) -> None:
        made = views(batch(), weak=[], moved=[FLIP_Y, TURN, FLIP_X])
        label = batch().label_l
        there = made["weak"].carry_label(label, made["moved"])
        back = made["moved"].carry_label(there, made["weak"])
        inside = (slice(None), *[slice(7, 13)] * 3)
        assert (there[inside] != label[inside]).float().mean() > 0.2
        assert (back[inside] == label[inside]).float().mean() > 0.85
        assert set(there.unique().tolist()) <= {0, 1, 2, 3}

    def test_between_two_moved_views_is_as_through_the_patch(self) -> None:
        made = views(batch(), weak=[], first=[TURN], second=[FLIP_X, TURN])
        smooth = torch.nn.functional.avg_pool3d(scores(), 5, 1, 2)
        direct = made["first"].carry_scores(made["weak"].carry_scores(smooth, made["first"]), made["second"])
        expected = made["weak"].carry_scores(smooth, made["second"])
        inside = (slice(None), slice(None), *[slice(7, 13)] * 3)
        torch.testing.assert_close(direct[inside], expected[inside], atol=0.04, rtol=0)
        assert (direct[inside] - smooth[inside]).abs().max() > 0.05

    def test_scores_that_need_a_gradient_keep_it(self) -> None:
        made = views(batch(), weak=[], moved=[TURN, FLIP_X])
        given = scores().requires_grad_()
        made["weak"].carry_scores(given, made["moved"]).sum().backward()
        assert given.grad is not None
        assert given.grad.abs().sum() > 0

    def test_views_of_other_patches_are_refused(self) -> None:
        one, two = views(batch(1), v=["gamma"])["v"], views(batch(2), v=["gamma"])["v"]
        with pytest.raises(ValueError, match="2 patches cannot be carried from a view of 2 to one of 1"):
            two.carry_label(batch(2).label_l, one)


def test_the_generators_of_views_are_not_those_of_the_streams() -> None:
    draws = {own_generators(0, purpose, 0, 0)("gamma").random() for purpose in ("labelled augment", "labelled view v")}
    assert len(draws) == 2
