"""The pieces that methods share: teacher, noise, boxes and cubes, components, class weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from duomod.losses.class_weights import distribution_weights, rlm_weights
from duomod.losses.running_weights import INTERVAL, MOMENTUM, ClassWeights, follow_predictions
from duomod.methods.conformance import Subject, progress
from duomod.methods.registry import METHODS
from duomod.methods.shared.components import remove_small_components
from duomod.methods.shared.mixing import cube_grid, exchange, from_cubes, random_boxes, to_cubes
from duomod.methods.shared.noise import clipped_gaussian
from duomod.methods.shared.teacher import EMATeacher, decay_at


def small_network() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.BatchNorm3d(2), nn.ReLU(), nn.Conv3d(2, 3, 1))


class TestTeacher:
    def test_starts_as_a_copy_without_gradients(self) -> None:
        student = small_network()
        teacher = EMATeacher(student)
        assert not any(p.requires_grad for p in teacher.parameters())
        for own, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
            assert torch.equal(own, theirs)
            assert own is not theirs

    def test_of_a_constant_student_is_constant(self) -> None:
        student = small_network()
        teacher = EMATeacher(student)
        before = [p.clone() for p in teacher.parameters()]
        for _ in range(3):
            teacher.update(student, 0.9, copy_buffers=True)
        for old, new in zip(before, teacher.parameters(), strict=True):
            torch.testing.assert_close(old, new)

    def test_moves_by_one_minus_decay(self) -> None:
        student, teacher = small_network(), EMATeacher(small_network())
        expected = [0.75 * t + 0.25 * s for t, s in zip(teacher.parameters(), student.parameters(), strict=True)]
        teacher.update(student, 0.75, copy_buffers=False)
        for wanted, own in zip(expected, teacher.parameters(), strict=True):
            torch.testing.assert_close(own.detach(), wanted.detach())

    @pytest.mark.parametrize("copy", [True, False])
    def test_buffers_follow_only_when_asked(self, copy: bool) -> None:
        student = small_network()
        teacher = EMATeacher(student)
        student(torch.rand(2, 1, 4, 4, 4))
        teacher.update(student, 0.5, copy_buffers=copy)
        same = torch.equal(teacher.network[1].running_mean, student[1].running_mean)
        assert same is copy

    def test_does_not_hold_the_student(self) -> None:
        student = small_network()
        assert len(list(EMATeacher(student).parameters())) == len(list(student.parameters()))

    def test_decay_warms_up(self) -> None:
        assert decay_at(0, 0.99) == 0
        assert decay_at(1, 0.99) == 0.5
        assert decay_at(10_000, 0.99) == 0.99


class TestNoise:
    def test_gaussian_stays_in_its_clip(self) -> None:
        x = torch.rand(2, 1, 8, 8, 8)
        difference = clipped_gaussian(x, 0.1, 0.2) - x
        assert difference.abs().max() <= 0.2 + 1e-6
        assert 0.08 < difference.std() < 0.11


class TestMixing:
    def test_boxes_have_the_edges_asked_for(self) -> None:
        box = random_boxes(torch.zeros(5, 1, 12, 9, 6), 2 / 3 + 1e-4, 2 / 3 + 1e-4)
        assert box.shape == (5, 1, 12, 9, 6)
        for one in box[:, 0]:
            where = one.nonzero()
            edges = (where.max(0).values - where.min(0).values + 1).tolist()
            assert edges == [8, 6, 4]
            assert one.sum() == math.prod(edges)

    def test_boxes_reach_every_corner(self) -> None:
        torch.manual_seed(0)
        covered = torch.stack([random_boxes(torch.zeros(1, 1, 6, 6, 6), 0.5, 0.5)[0, 0] for _ in range(300)])
        assert bool(covered.any(0).all())

    @pytest.mark.parametrize("size", [(8, 8, 8), (4, 6, 10)])
    def test_cubes_come_back(self, size: tuple[int, int, int]) -> None:
        x = torch.rand(2, 3, *size)
        grid = (2, 2, 2)
        cubes = to_cubes(x, grid)
        assert cubes.shape == (2, 8, 3, *(n // 2 for n in size))
        assert torch.equal(cubes[:, 1], x[:, :, : size[0] // 2, : size[1] // 2, size[2] // 2 :])
        assert torch.equal(from_cubes(cubes, grid), x)

    def test_exchanged_cubes_find_home(self) -> None:
        cubes = torch.rand(4, 8, 1, 2, 2, 2)
        source = torch.rand(4, 8).argsort(0)
        mixed = exchange(cubes, source)
        assert torch.equal(exchange(mixed, source.argsort(0)), cubes)
        assert torch.equal(mixed[2, 5], cubes[source[2, 5], 5])

    def test_grid_divides_every_axis(self) -> None:
        assert cube_grid((64, 128, 128), (2, 4, 4)) == (2, 4, 4)
        assert cube_grid((32, 48, 50), (2, 4, 4)) == (2, 4, 2)
        assert cube_grid((13, 17, 9), (2, 4, 4)) == (1, 1, 3)


class TestComponents:
    def kept_by_scipy(self, label: Tensor, classes: int, share: float) -> Tensor:
        """The rule, literally, one case and class at a time."""
        out = np.zeros(label.shape, np.int64)
        for case, volume in enumerate(label.numpy()):
            for c in range(1, classes):
                parts, count = ndimage.label(volume == c, structure=np.ones((3, 3, 3)))
                sizes = np.bincount(parts.ravel(), minlength=count + 1)
                sizes[0] = 0
                for part in range(1, count + 1):
                    if sizes[part] >= share * sizes.max():
                        out[case][parts == part] = c
        return torch.from_numpy(out)

    @pytest.mark.parametrize("share", [1.0, 0.3, 0.0])
    def test_agrees_with_scipy_on_the_full_grid(self, share: float) -> None:
        generator = torch.Generator().manual_seed(3)
        smooth = nn.functional.interpolate(torch.rand((2, 3, 5, 5, 5), generator=generator), 14, mode="trilinear")
        label = smooth.argmax(1)
        got = remove_small_components(label, 3, share, shrink=1)
        assert torch.equal(got, self.kept_by_scipy(label, 3, share))

    def test_islands_go_and_pairs_stay(self) -> None:
        label = torch.zeros((1, 24, 24, 24), dtype=torch.long)
        label[0, 2:10, 2:10, 2:10] = 1
        label[0, 16:24, 16:24, 16:23] = 1  # the other side of a paired organ
        label[0, 2:4, 18:20, 18:20] = 1  # an island
        cleaned = remove_small_components(label, 2, 0.3)
        assert cleaned.sum() == 8 * 8 * 8 + 8 * 8 * 7
        assert remove_small_components(label, 2, 1.0).sum() == 8 * 8 * 8

    def test_background_alone_stays(self) -> None:
        label = torch.zeros((2, 9, 9, 9), dtype=torch.long)
        assert torch.equal(remove_small_components(label, 4, 1.0), label)


class Fixed(nn.Module):
    """Predicts one class everywhere, and counts how often it is asked."""

    def __init__(self, winner: int, classes: int) -> None:
        super().__init__()
        self.winner, self.classes, self.asked = winner, classes, 0

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        self.asked += 1
        z = torch.zeros(len(x), self.classes, *x.shape[2:])
        z[:, self.winner] = 50.0
        return z


class TestClassWeights:
    start = torch.tensor([0.9, 0.08, 0.015, 0.005])

    def test_rlm_is_rlm(self) -> None:
        for got, wanted in zip(ClassWeights("rlm", self.start)(), rlm_weights(self.start), strict=True):
            assert torch.equal(got, wanted)

    def test_dhc_by_hand(self) -> None:
        weights = distribution_weights(torch.tensor([8.0, 4.0, 1.0]))
        # ln(8/8), ln(8/4), ln(8/1) over ln 8, times 3 classes
        torch.testing.assert_close(weights, torch.tensor([0.0, 1.0, 3.0]), atol=1e-5, rtol=0)

    @pytest.mark.parametrize("rule", ["rlm", "dhc"])
    def test_follow_the_predictions_every_few_steps(self, rule: str) -> None:
        weights = ClassWeights(rule, self.start)  # type: ignore[arg-type]
        predictor = Fixed(2, 4).train()
        image = torch.rand(1, 1, 4, 4, 4)
        for step in range(2 * INTERVAL):
            follow_predictions(weights, predictor, image, step)
        past = MOMENTUM ** (2 * INTERVAL)
        expected = past * self.start + (1 - past) * torch.tensor([0.0, 0, 1, 0])
        torch.testing.assert_close(weights.distribution, expected)
        assert predictor.asked == 2
        assert predictor.training

    def test_without_unlabelled_patches_they_stay(self) -> None:
        weights = ClassWeights("rlm", self.start)
        follow_predictions(weights, Fixed(2, 4), None, 0)
        assert torch.equal(weights.distribution, self.start)

    def test_are_saved_with_the_method(self) -> None:
        cls = METHODS.load("mean_teacher")
        subject = Subject(cls, cls.Config.preset("default", {"class_weights": "rlm"}))
        method = subject.build()
        before = method.state_dict()["imbalance.distribution"].clone()
        method(subject.batch(), progress(0))
        assert not torch.equal(method.state_dict()["imbalance.distribution"], before)

    def test_off_leaves_no_trace(self) -> None:
        method = Subject(METHODS.load("cps"), METHODS.load("cps").Config()).build()
        assert not [key for key in method.state_dict() if "imbalance" in key]
        assert method.imbalance is None
