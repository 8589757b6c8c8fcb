"""Whole experiments through the command line, on scans that take seconds: pasted, interrupted, gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from workshop import eventually

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
}
RUN = Path("logs/supervised/seed_0")


def duomod(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "duomod", *arguments]
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def experiment(data: Path) -> str:
    return yaml.safe_dump(
        {
            "gt_path": str(data / "raw" / "labelsVa"),
            "seeds": [0],
            "gpu": "",
            "min_seeds": 1,
            "workers": 1,
            "stages": {"training": True, "report": True},
            "training": {
                "data_path": str(data / "preprocessed"),
                "preset": "compact",
                "labeled_count": 2,
                "settings": {
                    "max_epochs": 2,
                    "steps_per_epoch": 30,
                    "patch": [16, 16, 16],
                    "network": {"filters": 4, "levels": 3},
                },
            },
            "report": {"viewer": False, "worst": 0},
            "methods": [
                {
                    "name": "supervised",
                    "log_root": str(RUN.parent),
                    "nii_path": str(data / "raw" / "imagesVa"),
                    "task": "phantom_tiny",
                }
            ],
        }
    )


@pytest.fixture(scope="module")
def pasted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which what ``--dry_run`` prints has been pasted into a shell; the data lie in it too."""
    folder = tmp_path_factory.mktemp("pasted")
    duomod("phantom", "raw", "--cases", "8", "--preset", "tiny", cwd=folder)
    duomod("preprocess", "--data_path", "raw", "--output_path", "preprocessed", cwd=folder)
    (folder / "experiment.yaml").write_text(experiment(folder))
    script = duomod("pipeline", "experiment.yaml", "--dry_run", cwd=folder).stdout
    assert not (folder / "logs").exists()
    bash = ["bash", "-e", "-c", script]
    done = subprocess.run(bash, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def gone_on(pasted: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A folder in which the same experiment was interrupted in its training and gone on with; what was said then."""
    folder = tmp_path_factory.mktemp("gone_on")
    (folder / "experiment.yaml").write_text(experiment(pasted))
    command = [sys.executable, "-m", "duomod", "pipeline", "experiment.yaml"]
    with subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as pipeline:
        began = eventually(lambda: bool(list(folder.glob(f"{RUN}/tensorboard/*"))), seconds=300)
        pipeline.send_signal(signal.SIGINT)
        _, said = pipeline.communicate(timeout=300)
    assert began
    assert pipeline.returncode == 130
    status = duomod("status", "experiment.yaml", "--json", cwd=folder).stdout
    duomod("pipeline", "experiment.yaml", cwd=folder)
    return folder, said, status


def test_pasted_commands_leave_what_the_pipeline_leaves(pasted: Path, gone_on: tuple[Path, str, str]) -> None:
    folder = gone_on[0]
    for name in (RUN / "result.csv", RUN.parent / "supervised_aggregated_metrics.csv"):
        assert (folder / name).read_bytes() == (pasted / name).read_bytes()
    assert (folder / "report" / "index.html").is_file()


def test_a_training_that_was_interrupted_ends_with_the_same_weights(
    pasted: Path, gone_on: tuple[Path, str, str]
) -> None:
    weights = [torch.load(base / RUN / "ckpts/best_model.pth", weights_only=True) for base in (pasted, gone_on[0])]
    for key, tensors in weights[0].items():
        if isinstance(tensors, dict):
            assert all(torch.equal(tensor, weights[1][key][name]) for name, tensor in tensors.items())


def test_the_interruption_says_how_to_go_on_and_status_what_stands(gone_on: tuple[Path, str, str]) -> None:
    folder, said, status = gone_on
    of_pipeline = said.splitlines()[-1]
    assert of_pipeline.endswith("duomod pipeline experiment.yaml")
    (log,) = folder.rglob(".steps/*train.log")
    of_training = next(line for line in log.read_text().splitlines() if "to go on, run: " in line)
    assert of_training.endswith(" --resume")
    for line in (of_training, of_pipeline):  # both are commands that there are
        command = line.partition("to go on, run: ")[2]
        done = subprocess.run(f"{command} --help", shell=True, cwd=folder, env=ENVIRONMENT, capture_output=True)
        assert done.returncode == 0, (command, done.stderr)
    states = {step["step"]: step["state"] for step in json.loads(status)["steps"]}
    assert states["supervised, seed 0: train"] == "interrupted"
    assert set(list(states.values())[1:]) == {"waiting"}
    after = json.loads(duomod("status", "experiment.yaml", "--json", cwd=folder).stdout)["steps"]
    assert {step["state"] for step in after} == {"done"}
    assert after[0]["done"] == after[0]["total"] == 60
    assert after[0]["best_dice"] is not None


def test_what_is_done_is_left_alone(gone_on: tuple[Path, str, str]) -> None:
    folder = gone_on[0]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    again = duomod("pipeline", "experiment.yaml", cwd=folder)
    assert again.stderr.count("done already") == 5
    assert again.stdout.splitlines()[-1] == "report"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
