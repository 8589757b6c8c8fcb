"""What happens when a loss, a gradient or a weight is no number: nothing of it is stepped with, or saved."""

from __future__ import annotations

import math
import os
import signal
from typing import Any

import pytest
import torch

from duomod.config import OptimConfig
from duomod.datasets.splits import Split
from duomod.errors import DuomodError
from duomod.training.learner import Learner
from duomod.training.optim import learning_rate


def plain_sgd() -> dict[str, Any]:
    return {"base_lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}


class NoGradient:
    """A slope by which the loss is finite and its gradient is not."""

    def __mul__(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + torch.sqrt(weight * 0)


class NoLoss:
    """A slope by which the loss is no number and its gradient is one."""

    def __mul__(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + math.nan


def spoilt_at(*steps: int, by: Any = math.nan) -> Any:
    """A slope that is one in all other steps."""
    return lambda step: by if step in steps else 1.0


SPOILS = pytest.mark.parametrize(
    ("by", "text"),
    [
        (math.nan, "the loss is nan"),
        (math.inf, "the loss is inf"),
        (NoLoss(), "the loss is nan"),
        (NoGradient(), "gradient is not finite in gauge.weight"),
    ],
)


class TestNoNumber:
    @SPOILS
    def test_the_run_ends_and_names_step_cases_and_the_last_good_state(self, record: Any, by: Any, text: str) -> None:
        with pytest.raises(DuomodError) as ended:
            record(slopes=spoilt_at(3, by=by), validation={"every_epochs": 1})
        assert ended.value.exit_code == 1
        message = str(ended.value)
        assert text in message
        assert "step 4 of 6 (cases" in message
        assert f"{record.folder / 'ckpts' / 'last.pth'} (step 2)" in message
        assert "--on_nan skip" in message
        assert len(message.splitlines()) == 1
        step = record.latest.steps[3]
        named = message.partition("(cases ")[2].partition(")")[0].split(", ")
        assert set(named) == {f"case_{number}" for number in step.labelled_cases | step.unlabelled_cases}
        assert record.latest.checkpoint("last")[1].step == 2
        assert record.latest.checkpoint("best_model")[1].step == 2
        assert len(record.latest.steps) == 4
        assert len(record.latest.gradients) == 3, "the optimizer was not let near it"
        assert len(record.latest.after) == 3

    @SPOILS
    @pytest.mark.parametrize("evaluated", [True, False])
    def test_in_the_very_last_step_it_is_no_success(self, record: Any, by: Any, text: str, evaluated: bool) -> None:
        split = {} if evaluated else {"split": Split("none", ("case_0",), ("case_2",), (), ())}
        with pytest.raises(DuomodError, match="step 6 of 6"):
            record(slopes=spoilt_at(5, by=by), validation={"every_epochs": 100}, **split)
        assert record.latest.checkpoint("last")[1].step == 4
        assert not (record.folder / "ckpts" / "best_model.pth").exists()

    def test_before_anything_was_saved_the_message_says_so(self, record: Any) -> None:
        with pytest.raises(DuomodError, match=r"step 2 of 6 .*nothing saved before"):
            record(slopes=spoilt_at(1))
        assert not (record.folder / "ckpts").exists()

    def test_a_model_that_answers_with_none_is_not_the_best(self, record: Any) -> None:
        def overflow(module: torch.nn.Module, given: Any, logits: torch.Tensor) -> torch.Tensor | None:
            second = type(module).__name__ == "Gauge" and len(record.latest.looks) > 2
            return logits * math.nan if second and not module.training else None

        handle = torch.nn.modules.module.register_module_forward_hook(overflow)
        with pytest.raises(DuomodError, match=r"step 4 of 6 .*validation of case_5: .* not finite; last good .*step 2"):
            record(validation={"every_epochs": 1})
        handle.remove()
        assert record.latest.checkpoint("best_model")[1].step == 2

    def test_weights_that_overflow_in_the_update_are_not_saved(self, record: Any) -> None:
        with pytest.raises(DuomodError, match=r"step 1 of 3 .*not finite in gauge\.weight"):
            record(steps_per_epoch=1, optim={"base_lr": 3e38})
        assert not (record.folder / "ckpts").exists()

    def test_an_interrupted_run_saves_none_either(self, record: Any) -> None:
        def slope(step: int) -> float:
            os.kill(os.getpid(), signal.SIGINT)
            return 1.0

        with pytest.raises(DuomodError, match=r"not finite in gauge\.weight"):
            record(slopes=slope, optim={"base_lr": 3e38})
        assert not (record.folder / "ckpts").exists()

    def test_a_large_gradient_is_a_number(self, record: Any) -> None:
        """Its square overflows."""
        assert record(slopes=lambda step: 1e30, optim={"base_lr": 1e-30}).gradients == [pytest.approx(1e30)] * 6

    @SPOILS
    def test_such_steps_can_be_left_out_and_are_counted(self, record: Any, by: Any, text: str) -> None:
        settings: dict[str, Any] = {"optim": plain_sgd(), "on_nan": "skip", "validation": {"every_epochs": 1}}
        records = record(slopes=spoilt_at(1, 4, by=by), **settings)
        assert records.state.skipped == 2
        assert records.weights[2] == records.weights[1]
        assert records.weights[5] == records.weights[4]
        assert [progress.step for progress, _ in records.after] == [0, 2, 3, 5]
        assert records.rates == [learning_rate(OptimConfig(**plain_sgd()), step, 6, 2) for step in (0, 2, 3, 5)]
        losses = [row["loss"] for row in records.metrics if "loss" in row]
        means = (records.weights[0], (records.weights[2] + records.weights[3]) / 2, records.weights[5])
        assert losses == pytest.approx(means)
        log = (record.folder / "train.log").read_text()
        assert "step 2 of 6 is left out" in log
        assert text in log
        assert "2 of them left out" in log
        assert records.checkpoint("last")[2]["state"]["skipped"] == 2

    def test_a_step_that_is_left_out_leaves_no_trace_in_buffers(self, record: Any) -> None:
        kept = record(slopes=spoilt_at(5), on_nan="skip").checkpoint("last")[2]["method"]["latest_loss"]
        assert kept == pytest.approx(record.latest.weights[4])

    def test_an_epoch_of_nothing_else_is_recorded_without_a_loss(self, record: Any) -> None:
        rows = record(slopes=spoilt_at(2, 3), on_nan="skip").metrics
        assert [row["step"] for row in rows if "learning_rate" in row] == [1, 3, 5]
        assert [row["step"] for row in rows if "loss" in row] == [1, 5]

    def test_too_many_in_a_row_end_the_run(self, record: Any) -> None:
        for last, ends in ((22, False), (23, True)):
            options: dict[str, Any] = {"slopes": spoilt_at(*range(2, last)), "on_nan": "skip", "max_epochs": 15}
            if ends:
                with pytest.raises(DuomodError, match="as in the 20 steps before it"):
                    record(**options)
                assert len(record.latest.steps) == 23
                assert record.latest.checkpoint("last")[1].step == 22
            else:
                assert record(**options).state.skipped == 20

    def test_as_many_with_a_good_one_in_between_do_not(self, record: Any) -> None:
        spoilt = spoilt_at(*range(2, 17), *range(18, 28))
        assert record(slopes=spoilt, on_nan="skip", max_epochs=15).state.skipped == 25

    def test_weights_that_are_gone_end_the_run_even_then(self, record: Any) -> None:
        with pytest.raises(DuomodError, match="step 2 of 6"):
            record(on_nan="skip", optim={"base_lr": 3e38})
        assert not (record.folder / "ckpts").exists()

    def test_with_fp16_an_overflow_is_normal_unless_it_lasts(self, record: Any) -> None:
        fp16: dict[str, Any] = {"dtype": torch.float16, "max_epochs": 20}
        records = record(slopes=spoilt_at(*range(3, 23), by=NoGradient()), **fp16)
        assert records.state.skipped == 0
        assert len(records.gradients) == 20
        with pytest.raises(DuomodError, match="as in the 20 steps before it"):
            record(slopes=spoilt_at(*range(3, 24), by=NoGradient()), **fp16)
        with pytest.raises(DuomodError, match="step 4 of 40"):
            record(slopes=spoilt_at(3), **fp16)

    def test_with_fp16_a_loss_that_is_no_number_can_be_left_out(self, record: Any) -> None:
        for by in (math.nan, NoLoss()):
            records = record(slopes=spoilt_at(3, by=by), dtype=torch.float16, on_nan="skip")
            assert (records.state.skipped, len(records.gradients)) == (1, 5)

    def test_a_gpu_is_asked_before_anything_is_saved(self, record: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is not waited for at each step; the first bad one is named all the same."""
        begin = Learner.__init__

        def on_gpu(self: Learner, *given: Any) -> None:
            begin(self, *given)
            self._waits = False

        monkeypatch.setattr(Learner, "__init__", on_gpu)
        with pytest.raises(DuomodError, match=r"step 7 of 12 .* is not finite; last good state: .*step 4"):
            record(slopes=spoilt_at(6, 7), steps_per_epoch=4)
        assert len(record.latest.steps) == 8
        assert record.latest.checkpoint("last")[1].step == 4
