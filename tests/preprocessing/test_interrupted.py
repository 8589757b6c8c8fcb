"""Preprocessing that is killed, or whose worker dies, goes on and ends like an uninterrupted run."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw_sets import UNIT, body, content, preprocess, raw_set, scan, write

from duomod.errors import InputError
from duomod.preprocessing.store import Store

RUN = """
import sys
from duomod.preprocessing.preprocess import run_preprocess
from duomod.preprocessing.settings import PreprocessSettings

if __name__ == "__main__":
    raw, out, workers = sys.argv[1:]
    run_preprocess(
        PreprocessSettings.model_validate(
            {"data_path": raw, "output_path": out, "workers": workers, "spacing": (1, 1, 1)}
        )
    )
"""


def larger_set(raw: Path) -> Path:
    rng = np.random.default_rng(0)
    for index in range(8):
        hu, label = body((40, 60, 60), seed=index)
        write(raw / "imagesTr" / f"case_{index}.nii.gz", scan(rng.integers(-500, 500, hu.shape).astype(np.int16)))
        write(raw / "labelsTr" / f"case_{index}.nii.gz", scan(label))
    (raw / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "a", "2": "b"}}))
    return raw


def started(folder: Path, raw: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    """A real run in another process, as soon as it has finished two cases and before it has finished all."""
    script = folder / "run.py"
    script.write_text(RUN)
    command = [sys.executable, str(script), str(raw), str(out), str(workers)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(out.glob(".unfinished/cases/case_*.json"))) < 2:
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return process


class TestKill:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_a_killed_run_goes_on_and_ends_like_an_uninterrupted_one(
        self, tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        raw = larger_set(tmp_path / "raw")
        whole = preprocess(raw, tmp_path / "whole", spacing=UNIT)
        out = tmp_path / "out"
        process = started(tmp_path, raw, out, workers)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        with pytest.raises(InputError, match="has not finished"):
            Store.open(out)
        # What a kill in the middle of a write leaves behind.
        (out / ".unfinished/imagesTr/.part-abc.npy").write_bytes(b"half")
        capsys.readouterr()
        preprocess(raw, out, spacing=UNIT)
        done = int(capsys.readouterr().err.split(" of 8 cases are done already")[0].split()[-1])
        assert 2 <= done < 8
        assert content(out) == content(whole)

    @pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the workers through /proc")
    def test_a_dead_worker_is_told_and_what_was_done_is_kept(self, tmp_path: Path) -> None:
        raw, out = larger_set(tmp_path / "raw"), tmp_path / "out"
        process = started(tmp_path, raw, out, 2)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        worker = next(c for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes())
        os.kill(int(worker), signal.SIGKILL)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 1
        assert b"a worker process ended unexpectedly" in told
        assert len(list(out.glob(".unfinished/cases/case_*.json"))) >= 2

    def test_a_full_disk_is_an_error_of_the_system_and_the_next_run_goes_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        raw = raw_set(tmp_path / "raw")
        save, calls = np.save, []

        def full(*args: Any, **kwargs: Any) -> None:
            calls.append(args)
            if len(calls) == 4:
                raise OSError(errno.ENOSPC, "No space left on device")
            save(*args, **kwargs)

        monkeypatch.setattr(np, "save", full)
        with pytest.raises(OSError, match="No space left"):
            preprocess(raw, tmp_path / "out")
        monkeypatch.undo()
        assert not list((tmp_path / "out").rglob(".part-*"))
        assert content(preprocess(raw, tmp_path / "out")) == content(preprocess(raw, tmp_path / "fresh"))

    @pytest.mark.parametrize("stop", [1, 3, 4, 5, 12])
    def test_a_kill_while_finished_cases_are_moved(
        self, tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        raw = raw_set(tmp_path / "raw")
        fresh = preprocess(raw, tmp_path / "fresh", spacing=(2.0, 2.0, 2.0))
        out = preprocess(raw, tmp_path / "out", spacing=UNIT)
        import duomod.preprocessing.preprocess as module

        moves = 0
        move = module._move

        def killed(source: Path, target: Path) -> None:
            nonlocal moves
            moves += 1
            if moves == stop:
                raise KeyboardInterrupt
            move(source, target)

        monkeypatch.setattr(module, "_move", killed)
        with pytest.raises(KeyboardInterrupt):
            preprocess(raw, out, spacing=(2.0, 2.0, 2.0))
        monkeypatch.undo()
        with pytest.raises(InputError, match="has not finished"):
            Store.open(out)
        preprocess(raw, out, spacing=(2.0, 2.0, 2.0))
        assert content(out) == content(fresh)


class TestOneCase:
    """An error in one case that nobody foresaw is that case's; the others are looked at all the same."""

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (RuntimeError("in\nsome library"), r"case_1\.nii\.gz: cannot be used \(RuntimeError: some library\)"),
            (KeyError(3), r"case_1\.nii\.gz: cannot be used \(KeyError: 3\)"),
            (MemoryError(), r"case_1\.nii\.gz: there is not enough memory"),
            (OSError(errno.EIO, "Input/output error"), r"case_1\.nii\.gz: Input/output error; check the file"),
            (InputError("no number"), r"case_1\.nii\.gz: no number"),
        ],
        ids=["runtime", "key", "memory", "read", "input"],
    )
    def test_is_named_and_the_others_are_looked_at(
        self, error: Exception, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import duomod.preprocessing.case as module

        raw = raw_set(tmp_path / "raw", cases=4)
        write(raw / "labelsTr" / "case_3.nii.gz", scan(body()[1], spacing=(2.0, 2.0, 2.0)))
        real = module.load_case

        def load_case(case: Any, spec: Any) -> Any:
            if case.case_id == "case_1":
                raise error
            return real(case, spec)

        monkeypatch.setattr(module, "load_case", load_case)
        with pytest.raises(InputError) as caught:
            preprocess(raw, tmp_path / "out", spacing=UNIT)
        first, second, *log = caught.value.problems
        assert re.search(words, first)
        assert "case_3.nii.gz" in second
        assert not (tmp_path / "out").exists()
        foreseen = isinstance(error, InputError | MemoryError | OSError)
        assert len(log) == (0 if foreseen else 1)
        if log:
            details = Path(log[0].partition(":")[0]).read_text()
            assert "case_1.nii.gz" in details
            assert "Traceback" in details
            assert "load_case" in details

    @pytest.mark.parametrize("workers", [1, 2])
    def test_of_a_place_that_cannot_be_written_ends_the_run(self, workers: int, tmp_path: Path) -> None:
        raw, out = raw_set(tmp_path / "raw"), tmp_path / "out"
        (out / ".unfinished").mkdir(parents=True)
        (out / ".unfinished" / "imagesTr").write_text("in the way")
        with pytest.raises(OSError, match="imagesTr"):
            preprocess(raw, out, spacing=UNIT, workers=workers)


class TestAlone:
    def test_a_second_preprocess_in_the_folder_is_refused_and_the_first_goes_on(self, tmp_path: Path) -> None:
        raw, out = larger_set(tmp_path / "raw"), tmp_path / "out"
        process = started(tmp_path, raw, out, 1)
        with pytest.raises(InputError, match=rf"out: a preprocess is running in this folder \(process {process.pid} "):
            preprocess(raw, out, spacing=UNIT)
        assert process.wait(timeout=60) == 0
        assert content(out) == content(preprocess(raw, tmp_path / "alone", spacing=UNIT))

    def test_the_output_lies_outside_the_raw_data(self, tmp_path: Path) -> None:
        raw = raw_set(tmp_path / "raw")
        (tmp_path / "link").symlink_to(raw)
        for out in (
            raw,
            raw / "out",
            tmp_path / "link",
            tmp_path / "link" / "deep" / "out",
            raw / ".." / "raw" / "out",
        ):
            with pytest.raises(InputError, match="the raw data set"):
                preprocess(raw, out)
        assert not (raw / "out").exists()
        assert not (raw / "deep").exists()

    def test_a_raw_data_set_that_may_only_be_read_or_was_renamed(self, tmp_path: Path) -> None:
        raw = raw_set(tmp_path / "raw")
        for folder in (raw / "imagesTr", raw / "labelsTr", raw):
            folder.chmod(0o555)
        whole = content(preprocess(raw, tmp_path / "out", spacing=UNIT))
        raw.chmod(0o755)
        moved = raw.rename(tmp_path / "moved")
        with pytest.raises(InputError, match="raw: folder not found"):
            preprocess(raw, tmp_path / "out", spacing=UNIT)
        with pytest.raises(InputError, match="holds the data set 'raw', not 'moved'"):
            preprocess(moved, tmp_path / "out", spacing=UNIT)
        assert content(tmp_path / "out") == whole
