from __future__ import annotations

from pathlib import Path

import pytest

from duomod.errors import DuomodError, InputError
from duomod.experiments.pipeline import Journal, run_experiment
from duomod.experiments.settings import load_pipeline

GOOD = """
gt_path: truth
seeds: [0, 3]
methods:
  - {name: cps, log_root: logs/cps, npy_path: data/imagesVa, nii_path: raw/imagesVa, task: amos}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_only_the_original_scripts_stages_are_on_by_default(tmp_path: Path) -> None:
    stages = load_pipeline(written(tmp_path, GOOD)).stages
    assert (stages.preprocessing, stages.training) == (False, False)
    assert (stages.inference, stages.evaluation, stages.aggregation) == (True, True, True)


def test_every_wrong_field_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_pipeline(written(tmp_path, GOOD + "seed: 1\noverlap: 2\n"))
    assert "seed" in str(caught.value)
    assert "overlap" in str(caught.value)


def test_a_stage_without_its_section_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="section 'training' is missing"):
        load_pipeline(written(tmp_path, GOOD + "stages: {training: true}\n"))


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", ""])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"experiment\.yaml"):
        load_pipeline(written(tmp_path, text))


def test_a_dry_run_touches_nothing_and_prints_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run_experiment(load_pipeline(written(tmp_path, GOOD)), dry_run=True)
    assert [path.name for path in tmp_path.iterdir()] == ["experiment.yaml"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["duomod", "predict"], ["duomod", "evaluate"]]
    assert lines[-1].startswith("duomod aggregate --method_base_dir logs/cps --dataset amos ")


def test_every_missing_seed_is_reported_and_the_exit_code_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DuomodError) as caught:
        run_experiment(load_pipeline(written(tmp_path, GOOD)))
    assert caught.value.exit_code == 1
    for seed in (0, 3):
        assert f"seed_{seed}" in str(caught.value)


def test_a_crash_in_one_step_does_not_stop_the_next() -> None:
    journal = Journal(dry_run=False)

    def crash() -> None:
        raise ZeroDivisionError("once")

    assert not journal.step("first", crash)
    assert journal.step("second", lambda: None)
    assert journal.failures == ["first: ZeroDivisionError: once"]
