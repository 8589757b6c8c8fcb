"""Killed before any one of its changes of the disk and run again, preprocessing ends in the same bytes as one run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from raw_sets import UNIT, content, preprocess, raw_set

#: Runs in a process of its own: for each change of the disk, a child that is killed just before it; then a whole run.
DRIVER = """
import os, shutil, signal, sys
from pathlib import Path
from raw_sets import UNIT, preprocess

before, raw, out, seed = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])

def in_a_child(last_change):
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    count = 0

    def counted(change):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == last_change:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*args, **kwargs)
        return call

    os.fsync = lambda _: None  # the system goes on, so what is written stays
    os.replace, os.unlink, os.rmdir = counted(os.replace), counted(os.unlink), counted(os.rmdir)
    try:
        preprocess(raw, out, spacing=UNIT, seed=seed)
    except BaseException as error:
        print(f"change {last_change}: {error!r}", flush=True)
        os._exit(1)
    os._exit(0)

for change in range(1, 10_000):
    shutil.rmtree(out, ignore_errors=True)
    if before.is_dir():
        shutil.copytree(before, out)
    status = in_a_child(change)
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    assert in_a_child(0) == 0
    shutil.move(out, Path(f"{out}-{change}"))
print(change)
"""


def killed_everywhere(before: Path, raw: Path, out: Path, seed: int) -> list[Path]:
    """A folder for each change: the run was killed before it, and done again."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(before), str(raw), str(out), str(seed)],
        env={"PYTHONPATH": ":".join([str(Path(__file__).parents[1]), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [Path(f"{out}-{change}") for change in range(1, int(done.stdout))]


def test_of_a_new_data_set(tmp_path: Path) -> None:
    raw = raw_set(tmp_path / "raw", cases=2)
    whole = content(preprocess(raw, tmp_path / "whole", spacing=UNIT))
    killed = killed_everywhere(tmp_path / "none", raw, tmp_path / "out", seed=0)
    assert len(killed) > 30
    for folder in killed:
        assert content(folder) == whole, folder


def test_of_other_splits(tmp_path: Path) -> None:
    raw = raw_set(tmp_path / "raw", cases=12)
    (raw / "splits").mkdir()
    (raw / "splits" / "test.txt").write_text("case_3\n")
    before = preprocess(raw, tmp_path / "before", spacing=UNIT)
    (before / "splits" / "labeled_mine.txt").write_text("case_1\n")
    (raw / "splits" / "test.txt").write_text("case_4\ncase_5\n")
    (raw / "splits" / "val.txt").write_text("case_6\n")
    whole = tmp_path / "whole"
    subprocess.run(["cp", "-r", str(before), str(whole)], check=True)
    expected = content(preprocess(raw, whole, spacing=UNIT, seed=7))
    assert json.loads(expected["splits/made.json"])["seed"] == 7
    assert expected["splits/labeled_mine.txt"] == b"case_1\n"
    assert expected["splits/eval.txt"] == b"case_6\n"
    assert expected["splits/train.txt"] != content(before)["splits/train.txt"]
    killed = killed_everywhere(before, raw, tmp_path / "out", seed=7)
    assert len(killed) > 20
    for folder in killed:
        assert content(folder) == expected, folder
