"""The scripts of ``benchmarks`` start, and the short forms of those that have one run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
#: Parts of another script.
PARTS = {"fuzz_inputs.py", "fuzz_trials.py"}
SCRIPTS = sorted(path.name for path in BENCHMARKS.glob("*.py") if path.name not in PARTS)


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_says_how_it_is_used(name: str, tmp_path: Path) -> None:
    done = run(str(BENCHMARKS / name), "--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"python benchmarks/{name}" in done.stdout


def test_few_damaged_inputs_of_each_kind_are_refused_or_read_rightly(tmp_path: Path) -> None:
    done = run(str(BENCHMARKS / "fuzz.py"), "--quick", "--seed", "1", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("|")][2:]
    assert [row[0].strip() for row in rows] == ["nifti", "dicom", "text", "checkpoint"]
    assert [int(row[1]) for row in rows] == [5] * 4
    assert all(int(row[2]) + int(row[3]) == 5 for row in rows)
