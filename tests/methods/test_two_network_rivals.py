"""What is particular to the rivals with two networks, by properties and numbers checked by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from duomod.errors import InputError
from duomod.losses.class_weights import hard_dice, learning_signals
from duomod.losses.gace import gace
from duomod.methods.adsh import AdaptiveThresholds, AdshConfig
from duomod.methods.base import MethodConfig, Progress
from duomod.methods.cld import CLDConfig, ConfidenceBank
from duomod.methods.conformance import Subject, progress, step_loss
from duomod.methods.registry import METHODS

NAMES = ["dhc", "cld", "adsh", "dst", "dmd", "galoss", "fcc", "duomodnet_ce", "duomodnet_rlm"]


def subject(name: str, preset: Any = "default", **settings: Any) -> Subject:
    cls = METHODS.load(name)
    return Subject(cls, cls.Config.preset(preset, settings))


def parts(subject: Subject, step: int = 50) -> dict[str, Any]:
    """Logged parts: a float each, or a list with one per class."""
    torch.manual_seed(0)
    return {name: value.tolist() for name, value in subject.build()(subject.batch(), progress(step)).parts.items()}


@pytest.mark.parametrize("name", NAMES)
def test_published_checkpoints_have_two_networks(name: str) -> None:
    assert set(subject(name).build().published_modules()) == {"A", "B"}


@pytest.mark.parametrize("name", NAMES)
def test_without_weight_the_supervised_loss_is_left(name: str) -> None:
    plain = subject(name, consistency_weight=0.0)
    assert float(step_loss(plain.build(), plain.batch(), 50).detach()) == pytest.approx(parts(plain)["supervised"])


@pytest.mark.parametrize("name", ["dmd", "fcc", "galoss", "duomodnet_ce"])
def test_swapping_the_networks_keeps_the_loss(name: str) -> None:
    method = subject(name).build()
    first = step_loss(method, subject(name).batch(), 50)
    fresh = subject(name).build()
    fresh.A, fresh.B = fresh.B, fresh.A
    torch.testing.assert_close(step_loss(fresh, subject(name).batch(), 50), first)


class TestDHC:
    def test_dice_by_hand(self) -> None:
        predicted = torch.tensor([0, 0, 1, 1, 2]).view(1, 1, 1, 5)
        truth = torch.tensor([0, 0, 0, 1, 1]).view(1, 1, 1, 5)
        expected = torch.tensor([2 * 2 / 5, 2 * 1 / 4, 0.0, 0.5])  # the last class is in neither map
        torch.testing.assert_close(hard_dice(predicted, truth, 4), expected)

    def test_only_the_right_signal_moves(self) -> None:
        learned, unlearned = learning_signals(torch.tensor([0.8, 0.2, 0.5]), torch.tensor([0.4, 0.4, 0.5]))
        torch.testing.assert_close(learned, torch.tensor([0.4 * 0.693147, 0.0, 0.0]))
        torch.testing.assert_close(unlearned, torch.tensor([0.0, 0.2 * 0.693147, 0.0]))

    def test_has_its_own_weights(self) -> None:
        with pytest.raises(InputError, match="own rule"):
            subject("dhc", class_weights="rlm").build()


class TestCLD:
    @staticmethod
    def bank(confidence: list[float], **settings: Any) -> ConfidenceBank:
        bank = ConfidenceBank(len(confidence), CLDConfig(**settings))
        bank.confidence.copy_(torch.tensor(confidence))
        return bank

    def test_keeps_hard_voxels(self) -> None:
        torch.manual_seed(0)
        predicted = torch.arange(3).view(3, 1, 1, 1).expand(3, 1, 1, 20_000)
        # rate = sqrt((1 - conf) / max(1 - conf)) = sqrt(0.1 / 0.8), sqrt(0.4 / 0.8), 1
        kept = self.bank([0.9, 0.6, 0.2]).mask(predicted).mean((1, 2, 3))
        torch.testing.assert_close(kept, torch.tensor([0.3536, 0.7071, 1.0]), rtol=0, atol=0.02)
        kept = self.bank([0.9, 0.6, 0.2], keep="easy").mask(predicted).mean((1, 2, 3))
        torch.testing.assert_close(kept, 1 - torch.tensor([0.3536, 0.7071, 1.0]), rtol=0, atol=0.02)

    def test_confidence_is_the_mean_probability_at_the_truth(self) -> None:
        bank = self.bank([0.0, 0.0, 0.0], every=2)
        p = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1]]).T.reshape(1, 3, 1, 1, 2)
        label = torch.tensor([0, 1]).view(1, 1, 1, 2)
        bank.update(p, label, step=0)
        assert not bank.confidence.any()
        bank.update(p, label, step=1)
        torch.testing.assert_close(bank.confidence, torch.tensor([0.7, 0.4, 0.0]))
        assert bank.known.tolist() == [True, True, False]

    def test_a_class_never_labelled_weighs_as_the_rarest(self) -> None:
        cld = subject("cld")
        method = cld.build()
        # the classes of the conformance subject halve from one to the next
        torch.testing.assert_close(method.weight, torch.tensor([1, 2, 4, 8]) ** (1 / 3))


class TestAdsh:
    POSITION = Progress(step=0, total_steps=8, steps_per_epoch=8)

    def test_every_class_accepts_the_share_of_the_major_one(self) -> None:
        torch.manual_seed(0)
        logits = torch.randn(1, 3, 16, 16, 16) * 2 + torch.tensor([1.5, 0.0, -1.0]).view(1, 3, 1, 1, 1)
        p = logits.softmax(1)
        thresholds = AdaptiveThresholds(3, AdshConfig())
        thresholds.update(p, self.POSITION)
        confidence, k = p.max(1)
        share = [(confidence[k == c] > thresholds.thresholds[c]).float().mean() for c in range(3)]
        torch.testing.assert_close(torch.stack(share), share[0].expand(3), rtol=0, atol=0.02)
        assert thresholds.thresholds[0] == pytest.approx(0.9, abs=2e-3)
        assert thresholds.thresholds[1] < 0.9

    def test_reference_ranks_the_scores_of_all_voxels_as_a_sort_does(self) -> None:
        torch.manual_seed(0)
        p = (torch.randn(2, 3, 8, 8, 8) * 2 + torch.tensor([1.5, 0.0, -1.0]).view(1, 3, 1, 1, 1)).softmax(1)
        thresholds = AdaptiveThresholds(3, AdshConfig.preset("reference"))
        thresholds.update(p, self.POSITION)
        assert not thresholds.thresholds.any()
        thresholds.update(p, Progress(1, 8, 8))
        scores, k = torch.cat([p, p]).movedim(1, 0).flatten(1), torch.cat([p, p]).argmax(1).flatten()
        n = torch.bincount(k, minlength=3)
        rho = float((scores[0] > 0.9).sum() / n[0])
        expected = [scores[c].sort(descending=True).values[int(rho * int(n[c]))] for c in range(3)]
        torch.testing.assert_close(thresholds.thresholds, torch.stack(expected), rtol=0, atol=3e-3)
        assert not thresholds.histogram.any()


class TestDST:
    def test_pseudo_heads_learn_from_the_other_network_only(self) -> None:
        dst = subject("dst")
        method = dst.build()
        step_loss(method, dst.batch(), 50).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in method.A.decoder_pseudo.parameters())

    def test_reference_leaves_them_untrained(self) -> None:
        method = subject("dst", "reference").build()
        assert not any(p.requires_grad for p in method.B.decoder_pseudo.parameters())

    def test_only_confident_voxels_count(self) -> None:
        method = subject("dst").build()
        teacher = torch.tensor([[9.0, 0.0], [0.0, 0.0]]).T.reshape(1, 2, 1, 1, 2)
        pupil = torch.tensor([[0.0, 0.0], [0.0, 7.0]]).T.reshape(1, 2, 1, 1, 2)
        assert float(method._taught(pupil, teacher)) == pytest.approx(0.693147, rel=1e-5)


class TestGACE:
    def test_all_voxels_by_hand(self) -> None:
        logits = torch.randn(1, 3, 1, 2, 4)
        target = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2]).view(1, 1, 2, 4)
        loss = functional.cross_entropy(logits, target, reduction="none").flatten()
        expected = sum(loss[i:j].sum() / ((j - i) ** 0.5 * 8**0.5) for i, j in ((0, 5), (5, 7), (7, 8)))
        torch.testing.assert_close(gace(logits, target, 100), expected)

    def test_hardest_quarter(self) -> None:
        logits, target = torch.randn(1, 2, 2, 2, 2), torch.zeros(1, 2, 2, 2, dtype=torch.long)
        loss = functional.cross_entropy(logits, target, reduction="none").flatten()
        torch.testing.assert_close(gace(logits, target, 25), loss.topk(2).values.mean())


class TestFCC:
    def test_frequent_classes_are_scaled_most(self) -> None:
        method = subject("fcc").build()
        logits = functional.one_hot(torch.arange(4), 4).float().view(1, 1, 1, 4, 4).permute(0, 4, 1, 2, 3)
        torch.testing.assert_close(method._gain(logits).flatten(), torch.tensor([2, 5 / 3, 4 / 3, 1]))

    def test_starts_late(self) -> None:
        late, never = subject("fcc"), subject("fcc", strength=0.0)
        assert step_loss(late.build(), late.batch(), 0) == step_loss(never.build(), never.batch(), 0)
        assert step_loss(late.build(), late.batch(), 50) != step_loss(never.build(), never.batch(), 50)


class TestAblations:
    def test_each_switches_off_one_half(self) -> None:
        assert "rlm_weight" not in parts(subject("duomodnet_ce"))
        assert "dafr_gain" in parts(subject("duomodnet_ce"))
        assert "rlm_weight" in parts(subject("duomodnet_rlm"))
        assert "dafr_gain" not in parts(subject("duomodnet_rlm"))

    @pytest.mark.parametrize("preset", ["default", "reference"])
    def test_the_rest_is_duomodnet(self, preset: Any) -> None:
        whole: MethodConfig = METHODS.load("duomodnet").Config.preset(preset)
        for name, differs in (("duomodnet_ce", {"rlm", "rlm_floor"}), ("duomodnet_rlm", {"direction"})):
            own = METHODS.load(name).Config.preset(preset).model_dump()
            assert {key for key, value in whole.model_dump().items() if own[key] != value} <= differs
