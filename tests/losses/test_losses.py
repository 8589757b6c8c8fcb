from __future__ import annotations

import math

import pytest
import torch

from duomod.losses.class_weights import descending_ranks, masked_quantile, rlm_weights
from duomod.losses.dice import dice_ce, dice_loss, ga_dice
from duomod.losses.ramps import sigmoid_rampup


def certain(target: torch.Tensor, classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(target, classes).permute(0, 4, 1, 2, 3).float()


def target_with(*labels: int) -> torch.Tensor:
    target = torch.zeros(1, 4, 4, 4, dtype=torch.long)
    for i, label in enumerate(labels):
        target[0, i, :2] = label
    return target


class TestDice:
    def test_a_perfect_prediction_costs_nothing_although_classes_are_absent(self) -> None:
        target = target_with(1, 3)
        assert dice_loss(certain(target, 5), target).item() == pytest.approx(0, abs=1e-6)

    def test_the_reference_charges_a_constant_for_each_absent_class(self) -> None:
        target = target_with(1)
        assert dice_loss(certain(target, 3), target, absent="constant").item() == pytest.approx(1 / 3, abs=1e-6)

    def test_false_positives_of_an_absent_class_are_pushed_down(self) -> None:
        target = target_with(1)
        logits = torch.zeros(1, 3, 4, 4, 4, requires_grad=True)
        p = logits.softmax(1)
        p.retain_grad()
        dice_loss(p, target).backward()
        assert p.grad is not None
        assert (p.grad[:, 2] > 0).all()

    def test_the_reference_lets_them_escape(self) -> None:
        target = target_with(1)
        p = torch.full((1, 3, 4, 4, 4), 1 / 3, requires_grad=True)
        # 1 - 0 / (sum p) does not depend on p.
        dice_loss(p, target, absent="constant").backward()
        assert p.grad is not None
        assert (p.grad[:, 2] == 0).all()

    def test_half_overlap_is_known_by_hand(self) -> None:
        target = torch.zeros(1, 1, 1, 4, dtype=torch.long)
        target[..., :2] = 1
        prediction = torch.zeros(1, 1, 1, 4, dtype=torch.long)
        prediction[..., 1:3] = 1
        # both classes: one of two voxels right, Dice 2*1/(2+2) = 0.5
        assert dice_loss(certain(prediction, 2), target).item() == pytest.approx(0.5, abs=1e-5)

    def test_class_weights_scale_their_class(self) -> None:
        target = target_with(1, 2)
        p = torch.rand(1, 3, 4, 4, 4).softmax(1)
        unweighted = [dice_loss(p, target, torch.eye(3)[c]).item() for c in range(3)]
        assert dice_loss(p, target, torch.tensor([1.0, 2.0, 3.0])).item() == pytest.approx(
            unweighted[0] + 2 * unweighted[1] + 3 * unweighted[2], rel=1e-5
        )

    def test_ga_dice_of_a_perfect_prediction_is_zero(self) -> None:
        target = target_with(1)
        assert ga_dice(certain(target, 4), target).item() == pytest.approx(0, abs=1e-6)

    def test_losses_are_float32_whatever_comes_in(self) -> None:
        target = target_with(1)
        assert dice_ce(torch.zeros(1, 3, 4, 4, 4, dtype=torch.bfloat16), target).dtype == torch.float32


class TestRamp:
    def test_it_rises_from_e_to_the_minus_five_to_one(self) -> None:
        assert sigmoid_rampup(0, 150) == pytest.approx(math.exp(-5))
        assert sigmoid_rampup(150, 150) == 1
        assert sigmoid_rampup(400, 150) == 1

    def test_a_ramp_of_length_zero_is_over_at_once(self) -> None:
        assert sigmoid_rampup(0, 0) == 1


class TestRLMWeights:
    def test_the_rarest_organ_weighs_most_and_the_background_is_neutral(self) -> None:
        shares = torch.tensor([0.9, 0.06, 0.02, 0.01, 0.0005])
        weight, dice = rlm_weights(shares / shares.sum())
        assert weight[1:].argmax() == 3
        assert weight[1:].argmin() == 0
        assert weight[0] == weight[1:].median()
        assert weight.mean().item() == pytest.approx(1, abs=1e-6)
        torch.testing.assert_close(dice, weight.sqrt().clamp(max=2))

    def test_equal_organs_weigh_the_same(self) -> None:
        weight, dice = rlm_weights(torch.tensor([0.7, 0.1, 0.1, 0.1]))
        assert (weight == 1).all()
        assert (dice == 1).all()

    def test_two_classes_work(self) -> None:
        assert (rlm_weights(torch.tensor([0.9, 0.1]))[0] == 1).all()

    @pytest.mark.parametrize("q", [0.0, 0.05, 0.5, 0.95, 1.0])
    def test_masked_quantile_is_the_quantile_of_what_is_left(self, q: float) -> None:
        values = torch.rand(17)
        mask = torch.rand(17) > 0.4
        torch.testing.assert_close(masked_quantile(values, mask, q), values[mask].quantile(q))


def test_ranks_count_from_the_largest_and_ties_keep_their_order() -> None:
    assert descending_ranks(torch.tensor([0.1, 0.5, 0.1, 0.3])).tolist() == [2, 0, 3, 1]
