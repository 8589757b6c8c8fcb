"""From what the user asks for to the run that the loop is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import duomod.training.setup
from duomod.training.run import Run, State
from duomod.training.settings import TrainSettings
from duomod.training.setup import run_train

SMALL: dict[str, Any] = {
    "max_epochs": 3,
    "precision": "fp32",
    "network": {"filters": 2, "levels": 2, "norm": "instance"},
}


@pytest.fixture
def planned(grey_levels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``planned(model, ...)``: the run that ``duomod train`` would hand to the loop, which is not run."""
    runs: list[tuple[Run, Any]] = []

    def fit(run: Run, resume: Any) -> State:
        runs.append((run, resume))
        return State()

    def plan(model: str, **options: Any) -> Run:
        monkeypatch.setattr(duomod.training.setup, "fit", fit)
        settings = {**SMALL, **options.pop("settings", {})}
        given = {"labeled_count": 2, "gpu": "", "overwrite": True, **options}
        folder = tmp_path / "run"
        run_train(TrainSettings(model=model, data_path=grey_levels, output_dir=folder, settings=settings, **given))
        return runs[-1][0]

    return plan


class TestSplits:
    def test_a_method_gets_the_labelled_and_unlabelled_cases_of_the_split(self, planned: Any) -> None:
        split = planned("cps").split
        assert split.labelled == ("case_0", "case_1")
        assert split.unlabelled == ("case_2", "case_3", "case_4")
        assert split.eval == ("case_5", "case_6")

    def test_the_upper_bound_trains_on_all_labels(self, planned: Any) -> None:
        split = planned("upper_bound").split
        assert split.labelled == ("case_0", "case_1", "case_2", "case_3", "case_4")
        assert split.unlabelled == ()
        assert split.eval == ("case_5", "case_6")

    def test_class_counts_are_those_of_the_labelled_cases(self, planned: Any) -> None:
        method = planned("supervised", method_settings={"class_weights": "rlm"}).method
        organ, speck, all_voxels = 2 * 144, 1 + 2, 2 * 12 * 16 * 16
        shares = torch.tensor([all_voxels - organ - speck, organ, speck]) / all_voxels
        torch.testing.assert_close(method.imbalance.distribution, shares)


class TestSteps:
    def test_an_epoch_is_one_pass_over_the_unlabelled_cases(self, planned: Any) -> None:
        run = planned("cps", settings={"sampling": {"batch": 2}})
        assert (run.steps_per_epoch, run.total_steps, run.schedule_steps) == (2, 6, 6)
        run = planned("cps", settings={"sampling": {"batch": 2, "batch_unlabeled": 1}})
        assert run.steps_per_epoch == 3

    def test_without_unlabelled_cases_it_is_one_over_the_labelled(self, planned: Any) -> None:
        assert planned("upper_bound", settings={"sampling": {"batch": 2}}).steps_per_epoch == 3

    def test_the_user_s_number_of_steps_is_taken(self, planned: Any) -> None:
        run = planned("cps", settings={"steps_per_epoch": 7})
        assert (run.steps_per_epoch, run.total_steps) == (7, 21)

    def test_the_final_epoch_comes_on_top(self, planned: Any) -> None:
        run = planned("cps", settings={"steps_per_epoch": 7, "final_epoch": True})
        assert (run.total_steps, run.schedule_steps) == (28, 21)


class TestWhatIsHandedOver:
    def test_settings_of_training_and_method_reach_the_run(self, planned: Any, tmp_path: Path) -> None:
        run = planned(
            "duomodnet",
            settings={"optim": {"weight_decay": 0.125}, "validation": {"patience": 3}},
            method_settings={"rlm_floor": 0.25},
        )
        assert run.config.optim.weight_decay == 0.125
        assert run.config.validation.patience == 3
        assert run.method.config.rlm_floor == 0.25
        assert run.info.method_settings["rlm_floor"] == 0.25
        stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
        assert stored["train"]["optim"]["weight_decay"] == 0.125
        assert stored["method"]["rlm_floor"] == 0.25

    def test_the_reference_preset_reaches_both(self, planned: Any) -> None:
        run = planned("cps", preset="reference")
        assert run.config.optim.schedule == "poly_late"
        assert run.config.final_epoch
        assert run.method.config.absent_class == "constant"

    def test_a_method_s_own_reference_training_gives_way_to_the_user(self, planned: Any) -> None:
        assert planned("dmd", preset="reference").config.validation.patience == 49
        assert (
            planned("dmd", preset="reference", settings={"validation": {"patience": 3}}).config.validation.patience == 3
        )

    def test_the_seed_decides_the_first_weights(self, planned: Any) -> None:
        def first(seed: int) -> torch.Tensor:
            run = planned("supervised", seed=seed)
            assert run.seed == seed
            return torch.cat([p.flatten() for p in run.method.parameters()])

        assert torch.equal(first(0), first(0))
        assert not torch.equal(first(0), first(1))

    def test_what_to_do_without_a_number_may_change_from_resume_to_resume(self, planned: Any, tmp_path: Path) -> None:
        assert planned("cps").on_nan == "stop"
        assert planned("cps", on_nan="skip").on_nan == "skip"
        assert "on_nan" not in (tmp_path / "run" / "config.yaml").read_text()

    def test_the_patch_is_the_data_set_s_unless_given(self, planned: Any) -> None:
        assert planned("cps").info.patch == (12, 16, 16)
        assert planned("cps", settings={"patch": [8, 8, 8]}).info.patch == (8, 8, 8)

    @pytest.mark.parametrize(("precision", "dtype"), [("fp32", None), ("bf16", torch.bfloat16)])
    def test_the_precision_is_the_one_asked_for(self, planned: Any, precision: str, dtype: Any) -> None:
        assert planned("cps", settings={"precision": precision}).dtype is dtype
