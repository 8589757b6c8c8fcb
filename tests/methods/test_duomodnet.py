from __future__ import annotations

import math

import pytest
import torch

from duomod.methods.base import Batch, MethodContext, Progress
from duomod.methods.cps import CPS
from duomod.methods.duomodnet import DAFR, DuoModNet, DuoModNetConfig, class_gains, jensen_shannon
from duomod.methods.shared.two_networks import cross_pseudo_supervision
from duomod.networks.builder import initialise
from duomod.networks.vnet import VNet


def context(classes: int = 4) -> MethodContext:
    counts = torch.tensor([1000.0, 100, 30, 5])[:classes]
    return MethodContext(
        classes, counts, lambda init="default", **_: initialise(VNet(1, classes, 4, levels=3, norm="instance"), init)
    )


def batch(classes: int = 4) -> Batch:
    return Batch(torch.rand(2, 1, 8, 8, 8), torch.randint(0, classes, (2, 8, 8, 8)), torch.rand(2, 1, 8, 8, 8))


class TestClassGains:
    shares = torch.tensor([0.8, 0.1, 0.06, 0.04])

    def test_head_expands_the_most_frequent(self) -> None:
        torch.testing.assert_close(class_gains(self.shares, "head"), torch.tensor([1, 2 / 3, 1 / 3, 0]))

    def test_tail_expands_the_rarest(self) -> None:
        torch.testing.assert_close(class_gains(self.shares, "tail"), torch.tensor([0, 1 / 3, 2 / 3, 1]))

    def test_foreground_leaves_the_background_alone_and_ranks_organs_only(self) -> None:
        torch.testing.assert_close(class_gains(self.shares, "foreground"), torch.tensor([0, 1, 0.5, 0]))

    def test_none_changes_nothing(self) -> None:
        assert (class_gains(self.shares, "none") == 0).all()

    def test_two_classes_work(self) -> None:
        for direction in ("head", "foreground", "tail", "none"):
            assert torch.isfinite(class_gains(torch.tensor([0.9, 0.1]), direction)).all()  # type: ignore[arg-type]


class TestDisagreement:
    def test_equal_predictions_do_not_disagree(self) -> None:
        p = torch.rand(1, 3, 2, 2, 2).softmax(1)
        assert jensen_shannon(p, p).abs().max() < 1e-6

    def test_opposite_certainty_is_ln_2(self) -> None:
        a = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1, 1)
        assert jensen_shannon(a, a.flip(1)).item() == pytest.approx(math.log(2), abs=1e-6)

    def test_it_is_symmetric(self) -> None:
        a, b = torch.rand(2, 1, 3, 4, 4, 4).softmax(2)
        torch.testing.assert_close(jensen_shannon(a, b), jensen_shannon(b, a))


class TestDAFR:
    def test_the_first_observation_overwrites_and_absent_classes_keep_theirs(self) -> None:
        dafr = DAFR(3, clamp=True)
        d = torch.tensor([0.1, 0.3]).view(1, 1, 1, 2)
        dafr.gain(d, torch.zeros(1, 1, 1, 2, dtype=torch.long), torch.ones(3))
        torch.testing.assert_close(dafr.minimum, torch.tensor([0.1, 0.0, 0.0]))
        torch.testing.assert_close(dafr.maximum, torch.tensor([0.3, math.log(2), math.log(2)]))

    def test_later_observations_move_it_slowly(self) -> None:
        dafr = DAFR(1)
        k = torch.zeros(1, 1, 1, 2, dtype=torch.long)
        dafr.gain(torch.tensor([0.1, 0.3]).view(1, 1, 1, 2), k, torch.ones(1))
        dafr.gain(torch.tensor([0.2, 0.5]).view(1, 1, 1, 2), k, torch.ones(1))
        assert dafr.minimum.item() == pytest.approx(0.99 * 0.1 + 0.01 * 0.2)
        assert dafr.maximum.item() == pytest.approx(0.99 * 0.3 + 0.01 * 0.5)

    def test_clamped_gains_stay_within_one_and_two(self) -> None:
        dafr = DAFR(2, clamp=True)
        for scale in (0.01, 0.6):
            d = scale * torch.rand(1, 4, 4, 4)
            gamma = dafr.gain(d, torch.randint(0, 2, (1, 4, 4, 4)), torch.ones(2))
            assert gamma.min() >= 1
            assert gamma.max() <= 2

    def test_one_value_only_counts_as_half(self) -> None:
        gamma = DAFR(1).gain(torch.full((1, 1, 1, 2), 0.2), torch.zeros(1, 1, 1, 2, dtype=torch.long), torch.ones(1))
        assert (gamma == 1.5).all()


def test_swapping_the_networks_swaps_nothing_in_the_cross_loss() -> None:
    a, b = torch.randn(2, 2, 3, 4, 4, 4)
    torch.testing.assert_close(cross_pseudo_supervision(a, b), cross_pseudo_supervision(b, a))


def test_without_rlm_and_dafr_it_is_cps() -> None:
    torch.manual_seed(0)
    duomod = DuoModNet(DuoModNetConfig(rlm=False, direction="none"), context())
    cps = CPS(CPS.Config(), context())
    cps.A.load_state_dict(duomod.A.state_dict())
    cps.B.load_state_dict(duomod.B.state_dict())
    for network in (duomod.A, duomod.B, cps.A, cps.B):
        network.eval()  # no dropout
    data, progress = batch(), Progress(50, 100, 1)
    torch.testing.assert_close(duomod(data, progress).loss, cps(data, progress).loss)


def test_dafr_starts_when_told_and_ramps_in() -> None:
    method = DuoModNet(DuoModNetConfig(dafr_start=0.2, dafr_rampup=0.1), context())
    strengths = [method._dafr_strength(Progress(step, 100, 1)) for step in (0, 19, 20, 25, 30, 99)]
    assert strengths[:2] == [0, 0]
    assert 0 < strengths[2] < strengths[3] < 1
    assert strengths[4:] == [1, 1]


def test_the_labelled_prior_starts_the_distribution_and_predictions_move_it() -> None:
    method = DuoModNet(DuoModNetConfig(), context())
    start = method.rlm.distribution.clone()
    assert start.sum().item() == pytest.approx(1)
    method(batch(), Progress(0, 10, 1))
    moved = method.rlm.distribution
    assert moved.sum().item() == pytest.approx(1, abs=1e-5)
    assert 0 < (moved - start).abs().max() < 0.02
