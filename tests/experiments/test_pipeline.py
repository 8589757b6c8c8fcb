from __future__ import annotations

import os
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from duomod import plugins
from duomod.errors import DuomodError, InputError
from duomod.experiments import executor
from duomod.experiments.executors.local import Local
from duomod.experiments.pipeline import run_pipeline
from duomod.experiments.planning import plan_of
from duomod.experiments.schedule import PlanInterrupted, Schedule
from duomod.experiments.settings import PipelineConfig, PipelineSettings, load_pipeline
from duomod.experiments.steps import Step
from duomod.locks import locked

GOOD = """
gt_path: truth
seeds: [0, 3]
methods:
  - {name: cps, log_root: logs/cps, npy_path: data/imagesVa, nii_path: raw/imagesVa, task: amos}
"""
EVERYTHING = """
gt_path: truth
seeds: [0, 3]
stages: {preprocessing: true, training: true, comparison: true, report: true}
preprocessing: {data_path: raw, output_path: data}
training: {data_path: data, labeled_count: 2, settings: {max_epochs: 3, optim: {base_lr: 0.1}}}
comparison: {baseline: cps}
overlap: 0.25
methods:
  - {name: cps, log_root: logs/cps, npy_path: data/imagesVa, nii_path: raw/imagesVa, task: amos}
  - name: cps
    log_root: logs/cps_slow
    nii_path: raw/imagesVa
    settings: {weight: 0.2}
    train_settings: {optim: {base_lr: 0.01}}
"""


class Mine(Local):
    """As a package of the user's would have it."""


def written(folder: Path, text: str) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def loaded(folder: Path, text: str) -> PipelineConfig:
    return load_pipeline(written(folder, text))


class TestTheFile:
    def test_only_the_original_scripts_stages_are_on_by_default(self, tmp_path: Path) -> None:
        stages = loaded(tmp_path, GOOD).stages
        assert (stages.preprocessing, stages.training) == (False, False)
        assert (stages.inference, stages.evaluation, stages.aggregation) == (True, True, True)

    def test_every_wrong_field_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InputError) as caught:
            loaded(tmp_path, GOOD + "seed: 1\noverlap: 2\n")
        assert "seed" in str(caught.value)
        assert "overlap" in str(caught.value)

    def test_a_stage_without_its_section_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="section 'training' is missing"):
            loaded(tmp_path, GOOD + "stages: {training: true}\n")

    @pytest.mark.parametrize("text", ["[1, 2]", "a: [", ""])
    def test_what_is_no_mapping_is_refused(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(InputError, match=r"experiment\.yaml"):
            loaded(tmp_path, text)

    def test_an_executor_is_a_name_or_has_settings(self, tmp_path: Path) -> None:
        assert loaded(tmp_path, GOOD + "executor: ray\n").executor == {"name": "ray"}
        assert loaded(tmp_path, GOOD + "executor: {name: local, gpus: [1]}\n").executor["gpus"] == [1]

    @pytest.mark.parametrize(
        ("executor", "named"), [("{name: local, gpu: [1]}", "Did you mean 'gpus'"), ("locale", "Did you mean 'local'")]
    )
    def test_a_wrong_executor_is_named_with_the_other_mistakes(self, tmp_path: Path, executor: str, named: str) -> None:
        with pytest.raises(InputError) as caught:
            loaded(tmp_path, GOOD + f"executor: {executor}\nstages: {{training: true}}\n")
        assert named in str(caught.value)
        assert "section 'training' is missing" in str(caught.value)

    def test_a_gpu_of_its_own_beside_an_executor_that_gives_them_out_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="the executor gives each step its GPU"):
            loaded(tmp_path, GOOD + 'gpu: "1"\nexecutor: {gpus: [0, 1]}\n')
        assert loaded(tmp_path, GOOD + 'gpu: "1"\n').gpu == "1"


class TestThePlan:
    def steps(self, tmp_path: Path, text: str = EVERYTHING) -> dict[str, Step]:
        return dict(plan_of(loaded(tmp_path, text)).by_name)

    def test_each_method_and_seed_is_trained_predicted_and_evaluated(self, tmp_path: Path) -> None:
        assert list(self.steps(tmp_path)) == [
            "preprocess",
            *(f"{title}, seed {seed}: train" for title in ("cps", "cps (cps_slow)") for seed in (0, 3)),
            *(
                f"{title}, seed {seed}: {what}"
                for title in ("cps", "cps (cps_slow)")
                for seed in (0, 3)
                for what in ("predict", "evaluate")
            ),
            "cps: aggregate",
            "cps (cps_slow): aggregate",
            "compare",
            "report",
        ]

    def test_a_step_waits_for_what_makes_its_input(self, tmp_path: Path) -> None:
        steps = self.steps(tmp_path)
        assert steps["cps, seed 0: train"].needs == ("preprocess",)
        assert steps["cps, seed 0: predict"].needs == ("cps, seed 0: train",)
        assert steps["cps, seed 0: evaluate"].needs == ("cps, seed 0: predict",)
        assert steps["cps: aggregate"].needs == ()
        assert steps["cps: aggregate"].after == ("cps, seed 0: evaluate", "cps, seed 3: evaluate")
        assert steps["compare"].needs == steps["report"].needs == ("cps: aggregate", "cps (cps_slow): aggregate")

    def test_stages_that_are_off_leave_no_steps_and_nothing_waits_for_them(self, tmp_path: Path) -> None:
        off = "stages: {inference: false, aggregation: false, report: true}\n"
        steps = self.steps(tmp_path, GOOD + off)
        assert list(steps) == ["cps, seed 0: evaluate", "cps, seed 3: evaluate", "report"]
        assert steps["cps, seed 0: evaluate"].needs == ()
        assert steps["report"].after == ("cps, seed 0: evaluate", "cps, seed 3: evaluate")

    def test_the_files_settings_are_in_the_command_lines(self, tmp_path: Path) -> None:
        steps = self.steps(tmp_path)
        train = " ".join(steps["cps (cps_slow), seed 3: train"].argv)
        assert train.startswith("duomod train ")
        for part in ("--seed 3", "--output_dir logs/cps_slow/seed_3", "--method_set weight=0.2", "--resume"):
            assert part in train
        assert "optim.base_lr=0.01" in train
        assert "max_epochs=3" in train
        predict = " ".join(steps["cps, seed 0: predict"].argv)
        assert "--overlap 0.25" in predict
        assert "--npy_path data/imagesVa" in predict

    def test_only_trainings_and_predictions_use_a_gpu_and_none_without_one(self, tmp_path: Path) -> None:
        using = {step.kind for step in self.steps(tmp_path).values() if step.gpus}
        assert using == {"train", "predict"}
        assert not any(step.gpus for step in self.steps(tmp_path, GOOD + 'gpu: ""\n').values())


class TestRunning:
    def test_a_dry_run_touches_nothing_and_prints_commands(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert run_pipeline(PipelineSettings(config=written(tmp_path, GOOD), dry_run=True)) is None
        assert [path.name for path in tmp_path.iterdir()] == ["experiment.yaml"]
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "# cps, seed 0: predict"
        assert [line.split()[:2] for line in lines[1:4:2]] == [["duomod", "predict"], ["duomod", "evaluate"]]
        assert lines[-1].startswith("duomod aggregate --method_base_dir logs/cps --dataset amos ")

    def test_every_missing_seed_is_reported_and_the_exit_code_tells(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(DuomodError) as caught:
            run_pipeline(PipelineSettings(config=written(tmp_path, GOOD)))
        assert caught.value.exit_code == 1
        lines = str(caught.value).splitlines()
        assert lines[0] == "3 step(s) failed; everything else is done"
        for seed in (0, 3):
            assert (
                f"cps, seed {seed}: predict: missing seed: logs/cps/seed_{seed}/ckpts/best_model.pth does not exist"
                in lines
            )
            assert f"cps, seed {seed}: evaluate: skipped because cps, seed {seed}: predict failed" in lines
        assert any(line.startswith("cps: aggregate: ") and "logs/cps" in line for line in lines)

    def test_the_command_to_go_on_is_printed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(schedule: Schedule) -> None:
            raise PlanInterrupted

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(Schedule, "run", interrupted)
        written(tmp_path, GOOD)
        with pytest.raises(PlanInterrupted, match=r"to go on, run: .*duomod pipeline experiment\.yaml$") as caught:
            run_pipeline(PipelineSettings(config=Path("experiment.yaml")))
        assert caught.value.exit_code == 130

    def test_a_second_pipeline_on_the_same_steps_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(Schedule, "run", lambda schedule: None)
        settings = PipelineSettings(config=written(tmp_path, GOOD))
        steps = load_pipeline(settings.config).steps
        refused = pytest.raises(InputError, match=rf"a pipeline is running in this folder \(process {os.getpid()} ")
        with locked(steps, "a pipeline"), refused:
            run_pipeline(settings)
        run_pipeline(settings)


def test_an_executor_of_the_users_is_one_class_behind_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mine", f"{__name__}:Mine", executor.EXECUTORS.group)
    broken = EntryPoint("broken", "no.such.module:Thing", executor.EXECUTORS.group)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point, broken])
    assert executor.EXECUTORS.names() == ["broken", "local", "mine", "ray", "slurm"]
    assert executor.EXECUTORS.load("mine") is Mine
    with pytest.raises(InputError, match=r"executor .broken. from the .* no\.such\.module:Thing is broken"):
        executor.EXECUTORS.load("broken")
