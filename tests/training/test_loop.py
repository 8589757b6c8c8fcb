"""What the loop does to a method, seen by a method that writes it down. Each promise has a fault in tests/mutants."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import torch

from duomod.config import OptimConfig
from duomod.datasets.splits import Split
from duomod.training.optim import learning_rate
from duomod.training.stopping import Interrupted


def plain_sgd(rate: float = 0.1, **changes: Any) -> dict[str, Any]:
    return {"base_lr": rate, "momentum": 0.0, "weight_decay": 0.0, **changes}


class TestAStep:
    def test_every_step_is_made_once_and_in_order(self, record: Any) -> None:
        records = record()
        assert [step.progress.step for step in records.steps] == [0, 1, 2, 3, 4, 5]
        assert {(p.total_steps, p.steps_per_epoch) for p in (s.progress for s in records.steps)} == {(6, 2)}

    def test_the_weight_moves_by_rate_times_gradient(self, record: Any) -> None:
        weights = record(slopes=lambda step: step + 1.0, optim=plain_sgd(schedule="poly")).weights
        rates = [0.1 * (1 - step / 6) ** 0.9 for step in range(6)]
        for step in range(5):
            assert weights[step + 1] == pytest.approx(weights[step] - rates[step] * (step + 1), rel=1e-5)

    def test_a_gradient_is_that_step_s_alone(self, record: Any) -> None:
        assert record(slopes=lambda step: step + 1.0).gradients == pytest.approx([1, 2, 3, 4, 5, 6])

    def test_after_step_is_called_once_a_step_with_the_new_weight(self, record: Any) -> None:
        records = record(optim=plain_sgd())
        assert [progress.step for progress, _ in records.after] == [0, 1, 2, 3, 4, 5]
        assert [weight for _, weight in records.after][:-1] == records.weights[1:]
        assert records.after[0][1] != records.weights[0]

    def test_the_gradient_is_clipped_to_the_norm(self, record: Any) -> None:
        clipped = record(slopes=lambda step: 0.5 if step == 0 else -8.0, optim=plain_sgd(clip_gradient=2.0)).gradients
        assert clipped == pytest.approx([0.5, -2, -2, -2, -2, -2], rel=1e-4)

    def test_without_a_norm_nothing_is_clipped(self, record: Any) -> None:
        assert record(slopes=lambda step: 1e4).gradients == [1e4] * 6

    def test_randomness_depends_on_seed_and_step_only(self, record: Any) -> None:
        torch.manual_seed(1)
        first = [step.draw for step in record().steps]
        torch.manual_seed(2)
        assert [step.draw for step in record().steps] == first
        assert len(set(first)) == 6
        assert not set(first) & {step.draw for step in record(seed=1).steps}

    def test_a_step_gets_both_streams(self, record: Any) -> None:
        for step in record(sampling={"batch": 2, "batch_unlabeled": 1}).steps:
            assert step.batch.image_l.shape == (2, 1, 12, 16, 16)
            assert step.batch.label_l.shape == (2, 12, 16, 16)
            assert step.batch.unlabelled().shape == (1, 1, 12, 16, 16)

    def test_a_step_gets_the_views_that_the_method_declares(self, record: Any) -> None:
        def views(seed: int) -> torch.Tensor:
            return torch.stack([step.batch.views["strong"].image - step.batch.unlabelled() for step in steps(seed)])

        def steps(seed: int) -> Any:
            return record(seed=seed).steps

        assert torch.equal(views(0), views(0))
        assert bool((views(0).abs().flatten(2).amax(2) > 0.001).all())

    def test_patches_are_augmented_as_the_settings_say(self, record: Any) -> None:
        def patches(augment: Any) -> torch.Tensor:
            steps = record(augment=augment).steps
            return torch.stack([torch.cat([step.batch.image_l, step.batch.unlabelled()]) for step in steps])

        plain = patches([])
        mirrored = patches([{"name": "flip_x", "probability": 1.0}])
        assert torch.equal(mirrored, plain.flip(-1))
        turned = patches([{"name": "affine", "probability": 1.0, "rotate_degrees": 40.0}])
        assert bool((turned != plain).flatten(2).any(2).all())
        brighter = patches([{"name": "brightness", "probability": 1.0}])
        assert bool((brighter != plain).flatten(2).any(2).all())
        assert len({round(float(d), 5) for d in (brighter - plain)[:, :, 0, 6, 6, 6].flatten()}) > 12

    def test_labelled_and_unlabelled_patches_come_from_the_cases_of_the_split(self, record: Any) -> None:
        steps = record().steps
        assert set().union(*(step.labelled_cases for step in steps)) == {0, 1}
        assert set().union(*(step.unlabelled_cases for step in steps)) == {2, 3, 4}

    def test_a_label_lies_where_its_organ_is(self, record: Any) -> None:
        for step in record(patch=[8, 8, 8]).steps:
            above = (
                step.batch.image_l[:, 0] * 100
            ).round() % 10  # the organ is 3 to 6 hundredths brighter, the speck 8
            assert torch.equal(step.batch.label_l == 1, (above > 2) & (above < 7))
            assert torch.equal(step.batch.label_l == 2, above > 7)

    def test_the_seed_decides_the_crops(self, record: Any) -> None:
        def crops(seed: int) -> torch.Tensor:
            steps = record(seed=seed, patch=[8, 8, 8]).steps
            return torch.stack([torch.cat([step.batch.image_l, step.batch.unlabelled()]) for step in steps])

        assert torch.equal(crops(0), crops(0))
        assert not torch.equal(crops(0)[:, :2], crops(1)[:, :2])
        assert not torch.equal(crops(0)[:, 2:], crops(1)[:, 2:])

    def test_the_network_is_in_training_mode_at_every_step(self, record: Any) -> None:
        assert [step.training for step in record(validation={"every_epochs": 1}).steps] == [True] * 6


def overflow_at(step: int) -> Any:
    """A slope that is finite, but not after scaling."""
    return lambda now: 1e35 if now == step else 1.0


class TestFloat16:
    """With a gradient scaler, as on a GPU without bf16."""

    def test_gradients_are_unscaled_before_they_are_clipped(self, record: Any) -> None:
        steps = record(slopes=lambda step: 0.5 if step == 0 else 8.0, dtype=torch.float16, optim={"clip_gradient": 2.0})
        assert steps.gradients == pytest.approx([0.5, 2, 2, 2, 2, 2], rel=1e-4)

    def test_gradients_are_unscaled_without_clipping(self, record: Any) -> None:
        assert record(slopes=lambda step: 3.0, dtype=torch.float16).gradients == [3] * 6

    def test_a_step_that_overflows_is_left_out_and_the_scale_is_halved(self, record: Any) -> None:
        records = record(slopes=overflow_at(1), dtype=torch.float16)
        assert len(records.gradients) == 5
        assert records.weights[1] == records.weights[2]
        assert records.checkpoint("last")[2]["scaler"]["scale"] == 2.0**15


class TestLearningRate:
    def test_every_update_has_the_schedule_s_rate(self, record: Any) -> None:
        for schedule in ("poly", "poly_late", "one_cycle"):
            optim = OptimConfig(base_lr=0.5, schedule=schedule)
            rates = record(optim={"base_lr": 0.5, "schedule": schedule}).rates
            assert rates == [learning_rate(optim, step, 6, 2) for step in range(6)]
            assert len(set(rates)) > 1

    def test_a_final_epoch_comes_on_top_of_the_schedule(self, record: Any) -> None:
        records = record(final_epoch=True, optim={"base_lr": 0.5, "schedule": "poly_late"})
        assert [step.progress.step for step in records.steps] == list(range(8))
        assert {step.progress.total_steps for step in records.steps} == {6}
        assert records.rates[6:] == [pytest.approx(0.5 * (1 / 3) ** 0.9)] * 2

    def test_the_rate_is_recorded_with_the_losses(self, record: Any) -> None:
        records = record()
        assert [row["learning_rate"] for row in records.metrics if "loss" in row] == records.rates[1::2]


class TestOptimizer:
    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_sgd_decays_the_weight_and_has_nesterov_momentum(self, record: Any, momentum: float) -> None:
        optim = {"base_lr": 0.1, "momentum": momentum, "weight_decay": 0.2}
        records = record(optim=optim)
        weight, velocity = 1.0, 0.0
        for step, rate in enumerate(records.rates):
            assert records.weights[step] == pytest.approx(weight, rel=1e-5)
            gradient = 1.0 + 0.2 * weight
            velocity = momentum * velocity + gradient
            weight -= rate * (gradient + momentum * velocity)

    def test_adamw_decays_the_weight_apart_from_the_gradient(self, record: Any) -> None:
        records = record(optim={"name": "adamw", "base_lr": 0.1, "weight_decay": 0.2})
        weight = 1.0
        for step, rate in enumerate(records.rates):
            assert records.weights[step] == pytest.approx(weight, rel=1e-5)
            weight = weight * (1 - rate * 0.2) - rate  # a constant gradient: Adam's step is the rate


class TestValidation:
    def test_it_looks_at_the_evaluation_cases_alone_in_eval_mode(self, record: Any) -> None:
        records = record(validation={"every_epochs": 1})
        assert records.cases_looked_at == [5, 6] * 3
        assert not any(training for training, _ in records.looks)

    def test_it_comes_every_so_many_epochs_and_after_the_last(self, record: Any) -> None:
        records = record(max_epochs=5, validation={"every_epochs": 2})
        assert [row["step"] for row in records.metrics if "val_dice" in row] == [3, 7, 9]

    def test_it_comes_after_every_epoch_from_the_one_that_is_asked_for(self, record: Any) -> None:
        records = record(max_epochs=6, validation={"every_epochs": 100, "dense_from_epoch": 4})
        assert [row["step"] for row in records.metrics if "val_dice" in row] == [7, 9, 11]

    def test_its_dice_is_recorded_for_each_class_that_there_is(self, record: Any) -> None:
        (row,) = [row for row in record(recalls=[0.5]).metrics if "val_dice" in row]
        assert row["val_dice"] == pytest.approx(2 / 3)
        assert row["val_dice/organ"] == pytest.approx(2 / 3)
        assert "val_dice/speck" not in row

    def test_a_class_in_neither_map_counts_one_where_the_settings_say_so(self, record: Any) -> None:
        (row,) = [row for row in record(recalls=[0.5], validation={"both_empty": "one"}).metrics if "val_dice" in row]
        assert row["val_dice"] == pytest.approx((2 / 3 + 1) / 2)

    @pytest.mark.parametrize(("overlap", "windows"), [(0.0, 4), (0.5, 9)])
    def test_windows_overlap_as_the_settings_say(self, record: Any, overlap: float, windows: int) -> None:
        records = record(patch=[12, 8, 8], validation={"overlap": overlap})
        assert len(records.looks) == 2 * windows

    def test_without_evaluation_cases_the_last_model_is_the_best(self, record: Any) -> None:
        records = record(split=Split("none", ("case_0",), ("case_2",), (), ()))
        assert not records.looks
        weight, info, _ = records.checkpoint("best_model")
        assert (weight, info.step, info.validation_dice) == (records.after[-1][1], 6, None)


class TestBestAndLast:
    def test_the_best_holds_the_first_of_the_best_validations(self, record: Any) -> None:
        records = record(recalls=[0.25, 0.75, 0.5, 0.75, 0.5], max_epochs=5, validation={"every_epochs": 1})
        weight, info, resume = records.checkpoint("best_model")
        assert weight == records.after[3][1]
        assert info.step == 4
        assert info.validation_dice == pytest.approx(6 / 7)
        assert not resume
        assert (records.state.best_step, records.state.best_dice) == (4, pytest.approx(6 / 7))

    def test_the_last_holds_the_last_model_and_the_outcome_of_its_validation(self, record: Any) -> None:
        records = record(recalls=[0.25, 0.5, 0.75], validation={"every_epochs": 1})
        weight, info, resume = records.checkpoint("last")
        assert weight == records.after[-1][1]
        assert info.step == 6
        state = {"step": 6, "best_dice": pytest.approx(6 / 7), "best_step": 6, "without_improvement": 0}
        assert resume["state"] == {**state, "skipped": 0, "validation_due": False}

    def test_a_model_that_finds_nothing_is_still_kept(self, record: Any) -> None:
        _, info, _ = record(recalls=[0.0]).checkpoint("best_model")
        assert info.validation_dice == 0


class TestEarlyStopping:
    def test_it_stops_after_so_many_validations_without_improvement(self, record: Any) -> None:
        recalls = [0.25, 0.5, 0.5, 0.25, 1.0]
        records = record(recalls=recalls, max_epochs=9, validation={"every_epochs": 1, "patience": 2})
        assert len(records.steps) == 8
        assert (records.state.step, records.state.best_step) == (8, 4)
        assert records.checkpoint("last")[1].step == 8

    def test_an_improvement_starts_the_count_again(self, record: Any) -> None:
        recalls = [0.5, 0.25, 0.75, 0.5, 1.0, 0.25]
        records = record(recalls=recalls, max_epochs=6, validation={"every_epochs": 1, "patience": 2})
        assert len(records.steps) == 12

    def test_without_patience_it_goes_on(self, record: Any) -> None:
        records = record(recalls=[1.0, *[0.5] * 8], max_epochs=9, validation={"every_epochs": 1, "patience": None})
        assert len(records.steps) == 18


class TestNumbers:
    def test_an_epoch_s_losses_are_its_own_mean(self, record: Any) -> None:
        records = record()
        rows = [row for row in records.metrics if "loss" in row]
        assert [row["step"] for row in rows] == [1, 3, 5]
        assert [row["loss"] for row in rows] == pytest.approx(
            [(records.weights[i] + records.weights[i + 1]) / 2 for i in (0, 2, 4)]
        )


def interrupt_at(step: int) -> Any:
    """A slope that presses Ctrl-C in the middle of a step."""

    def slope(now: int) -> float:
        if now == step:
            os.kill(os.getpid(), signal.SIGINT)
        return 1.0 + now

    return slope


SETTINGS: dict[str, Any] = {"max_epochs": 4, "optim": {"base_lr": 0.1}, "validation": {"every_epochs": 1}}


class TestResuming:
    @pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
    def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(self, record: Any, optimizer: str) -> None:
        settings = {**SETTINGS, "optim": {"base_lr": 0.1, "name": optimizer}}
        recalls = [0.5, 0.75, 0.25, 0.25]
        whole = record(slopes=lambda step: 1.0 + step, recalls=recalls, **settings)
        expected = (whole.state, whole.checkpoint("last")[0], whole.rates, whole.weights, whole.metrics)
        for file in record.folder.glob("metrics.jsonl"):
            file.unlink()
        with pytest.raises(Interrupted, match="--resume"):
            record(slopes=interrupt_at(4), recalls=recalls, **settings)
        first = record.latest
        assert first.checkpoint("last")[1].step == 5
        second = record(
            slopes=lambda step: 1.0 + step, recalls=recalls[2:], resume=first.checkpoint("last")[2], **settings
        )
        assert [step.progress.step for step in second.steps] == [5, 6, 7]
        assert (second.state, second.checkpoint("last")[0]) == expected[:2]
        assert first.rates + second.rates == expected[2]
        assert first.weights + second.weights == expected[3]
        validations = [row for row in expected[4] if "val_dice" in row]
        assert [row for row in second.metrics if "val_dice" in row] == validations
        for before, after in zip(whole.steps[5:], second.steps, strict=True):
            assert before.draw == after.draw
            assert torch.equal(before.batch.image_l, after.batch.image_l)
            assert torch.equal(before.batch.unlabelled(), after.batch.unlabelled())

    @pytest.mark.parametrize("look", [1, 2])
    def test_a_request_during_validation_is_heard_at_once_and_the_resume_makes_up_for_it(
        self, record: Any, look: int
    ) -> None:
        """Two cases are looked at, each in one window; the request comes with the first or the last one."""
        recalls = [0.5, 0.75, 0.25, 0.25]
        whole = record(recalls=recalls, **SETTINGS)
        expected = (whole.state, whole.checkpoint("last"), whole.checkpoint("best_model")[:2], whole.metrics)
        (record.folder / "metrics.jsonl").unlink()
        looks = 0

        def stop(module: torch.nn.Module, *_: Any) -> None:
            nonlocal looks
            looks += type(module).__name__ == "Gauge" and not module.training
            if looks == 2 + look:
                os.kill(os.getpid(), signal.SIGTERM)

        handle = torch.nn.modules.module.register_module_forward_hook(stop)
        with pytest.raises(Interrupted, match="--resume"):
            record(recalls=recalls, **SETTINGS)
        handle.remove()
        first = record.latest
        assert len(first.looks) == 2 + look
        assert len(first.steps) == 4
        assert first.checkpoint("best_model")[1].step == (2 if look == 1 else 4)
        state = first.checkpoint("last")[2]
        assert state["state"]["validation_due"] is (look == 1)
        second = record(recalls=recalls[2 - (look == 1) :], resume=state, **SETTINGS)
        assert [step.progress.step for step in second.steps] == [4, 5, 6, 7]
        assert (second.state, second.checkpoint("best_model")[:2], second.metrics) == (expected[0], *expected[2:])
        assert second.checkpoint("last")[0] == expected[1][0]

    def test_a_request_in_an_epoch_s_last_step_puts_its_validation_off(self, record: Any) -> None:
        with pytest.raises(Interrupted):
            record(slopes=interrupt_at(3), **SETTINGS)
        assert len(record.latest.looks) == 2
        assert record.latest.checkpoint("last")[2]["state"]["validation_due"]

    def test_numbers_after_the_last_checkpoint_are_dropped(self, record: Any) -> None:
        state = record(**{**SETTINGS, "max_epochs": 2}).checkpoint("last")[2]
        with open(record.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write('{"step": 4, "loss": 77.0}\n{"step": 5, "lo')
        rows = record(resume=state, **SETTINGS).metrics
        assert [row["step"] for row in rows if "loss" in row] == [1, 3, 5, 7]
        assert 77.0 not in [row.get("loss") for row in rows]

    def test_the_gradient_scaler_s_scale_is_kept(self, record: Any) -> None:
        settings: dict[str, Any] = {"dtype": torch.float16, "max_epochs": 1}
        state = record(slopes=overflow_at(0), **settings)
        resumed = record(resume=state.checkpoint("last")[2], **{**settings, "max_epochs": 2})
        assert resumed.checkpoint("last")[2]["scaler"]["scale"] == 2.0**15
