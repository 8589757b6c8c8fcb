"""Which methods ``run_unified_pipeline.sh`` hands over; that the pipeline then does them is in test_chain.py."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

SCRIPT = Path(__file__).parents[2] / "run_unified_pipeline.sh"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with a ``duomod`` that shows the experiment it was given."""
    shown = tmp_path / "bin" / "duomod"
    shown.parent.mkdir()
    shown.write_text('#!/bin/sh\ntest "$1" = pipeline && cat "$2"\n')
    shown.chmod(0o755)
    return tmp_path


def handed_over(folder: Path, **switches: str) -> dict[str, Any]:
    done = ran(folder, **switches)
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = yaml.safe_load(done.stdout)
    return content


def ran(folder: Path, **switches: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", **switches}
    return subprocess.run(["bash", str(SCRIPT)], cwd=folder, env=environment, capture_output=True, text=True)


def seeds(folder: Path, name: str, *numbers: int, model: str | None = None) -> None:
    for number in numbers:
        run = folder / "logs" / "amos" / name / f"seed_{number}"
        run.mkdir(parents=True)
        if model is not None:
            (run / "config.yaml").write_text(f"model: {model}\nseed: {number}\n")


def test_after_the_example_of_the_original_readme_it_takes_slcnet(folder: Path) -> None:
    seeds(folder, "slcnet", 0, 1, 2, model="slcnet")
    given = handed_over(folder)
    assert given["seeds"] == [0, 1, 2]
    assert given["methods"] == [
        {
            "name": "slcnet",
            "log_root": "./logs/amos/slcnet",
            "npy_path": "./Dataset/AMOS22_preprocessed/imagesVa",
            "nii_path": "./Dataset/AMOS22/imagesVa",
            "task": "amos",
        }
    ]


def test_every_folder_with_seeds_is_a_method_and_a_variant_knows_its_own(folder: Path) -> None:
    seeds(folder, "cps", 0)  # without config.yaml: trained elsewhere
    seeds(folder, "duomodnet_few", 0, 1, model="duomodnet")
    (folder / "logs" / "amos" / "notes").mkdir()
    (folder / "logs" / "amos" / "report.html").write_text("")
    found = [(method["name"], method["log_root"]) for method in handed_over(folder)["methods"]]
    assert found == [("cps", "./logs/amos/cps"), ("duomodnet", "./logs/amos/duomodnet_few")]


def test_a_list_from_the_environment_comes_first(folder: Path) -> None:
    seeds(folder, "cps", 0)
    (method,) = handed_over(folder, METHODS_TO_PROCESS="dhc;./logs/dhc;./npy;./nii;word")["methods"]
    assert method == {"name": "dhc", "log_root": "./logs/dhc", "npy_path": "./npy", "nii_path": "./nii", "task": "word"}


def test_a_line_of_the_array_comes_before_what_is_found(folder: Path) -> None:
    seeds(folder, "cps", 0)
    text = SCRIPT.read_text()
    assert text.count('  # "slcnet;./logs/amos/slcnet;') == 1
    edited = folder / "edited.sh"
    edited.write_text(text.replace('# "slcnet;', '"slcnet;'))
    environment = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", str(edited)], cwd=folder, env=environment, capture_output=True, text=True)
    assert [method["name"] for method in yaml.safe_load(done.stdout)["methods"]] == ["slcnet"]


def test_without_any_method_it_says_where_it_looked(folder: Path) -> None:
    done = ran(folder, LOG_ROOT="./elsewhere")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ./elsewhere: no method with seed folders")
