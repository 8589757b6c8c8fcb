"""Loader processes: one answer to whatever happens to them, and none is left behind. Real processes, real signals."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from duomod.errors import DuomodError, InputError
from duomod.sampling.batch import Batch
from duomod.sampling.loading import made_ahead


def numbered(step: int) -> Batch:
    """A batch that says which step it is of."""
    return Batch(torch.full((1, 1, 2, 2, 2), float(step)), torch.full((1, 2, 2, 2), step), None)


def number_of(batch: Batch) -> int:
    return int(batch.label_l[0, 0, 0, 0])


class UnpicklableError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def failing(error: type[Exception], step: int) -> Batch:
    """Batches up to step 2, which cannot be made."""
    if step == 2:
        raise error("scan", "mask") if error is UnpicklableError else error("scan.npy: damaged")
    return numbered(step)


def dying(step: int) -> Batch:
    """Batches up to step 2, where the process is killed as the system does when memory runs out."""
    if step == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return numbered(step)


def out_of_shared_memory(step: int) -> Batch:
    """Batches up to step 2, for which there is no room."""
    if step == 2:

        def full(*_: object, **__: object) -> None:
            raise RuntimeError(
                "unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"
            )

        torch.UntypedStorage._share_fd_cpu_ = full  # type: ignore[method-assign]
    return numbered(step)


def in_a_deep_folder(folder: str, step: int) -> Batch:
    """Processes that pass things to each other by a socket there cannot make one."""
    tempfile.tempdir = folder
    return numbered(step)


class TestBatches:
    def test_they_come_in_order_whoever_made_them(self) -> None:
        assert [number_of(batch) for batch in made_ahead(numbered, range(3, 9), 2)] == [3, 4, 5, 6, 7, 8]
        assert not multiprocessing.active_children()

    def test_closing_ends_the_processes_and_signals_are_heard_again(self) -> None:
        handler, mask = signal.getsignal(signal.SIGCHLD), signal.pthread_sigmask(signal.SIG_BLOCK, ())
        stream = made_ahead(numbered, range(100), 1)
        next(stream)
        (process,) = multiprocessing.active_children()
        stream.close()
        process.join(5)
        assert not process.is_alive()
        assert signal.getsignal(signal.SIGCHLD) is handler
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


class TestFailures:
    @pytest.mark.parametrize("error", [InputError, FileNotFoundError])
    def test_what_goes_wrong_in_a_process_is_raised_here_as_it_is(self, error: type[Exception]) -> None:
        stream = made_ahead(partial(failing, error), range(5), 1)
        with contextlib.closing(stream), pytest.raises(error) as raised:
            list(stream)
        assert str(raised.value) == "scan.npy: damaged"
        assert "in failing" in raised.value.__notes__[0]

    def test_an_error_that_cannot_be_sent_is_told(self) -> None:
        stream = made_ahead(partial(failing, UnpicklableError), range(5), 1)
        with contextlib.closing(stream), pytest.raises(DuomodError, match="scan and mask"):
            list(stream)

    def test_a_process_that_is_killed_is_missed_within_seconds(self) -> None:
        began = time.monotonic()
        stream = made_ahead(dying, range(5), 1)
        with contextlib.closing(stream), pytest.raises(DuomodError, match=r"loader process ended .*SIGKILL.*memory"):
            list(stream)
        assert time.monotonic() - began < 60

    def test_full_shared_memory_is_said(self) -> None:
        stream = made_ahead(out_of_shared_memory, range(5), 1)
        with contextlib.closing(stream), pytest.raises(InputError, match=r"No space left .*/dev/shm.*workers") as full:
            list(stream)
        assert len(str(full.value).splitlines()) == 1

    def test_so_is_a_folder_for_temporary_files_that_cannot_be_used(self, tmp_path: Path) -> None:
        deep = tmp_path / ("d" * 120)
        deep.mkdir()
        stream = made_ahead(partial(in_a_deep_folder, str(deep)), range(5), 1)
        with contextlib.closing(stream), pytest.raises(InputError, match=r"cannot hand over a batch .AF_UNIX path too"):
            list(stream)

    def test_so_is_a_system_that_lets_no_process_begin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(multiprocessing.synchronize.SemLock, "__init__", refuse)
        with pytest.raises(InputError, match=r"cannot be started .*Read-only file system.*/dev/shm"):
            next(made_ahead(numbered, range(5), 1))


TRAINING = """
import contextlib, os, sys, time
from pathlib import Path
import torch
from duomod.sampling.batch import Batch
from duomod.sampling.loading import made_ahead
from duomod.training.stopping import stop_requests

def make(step):
    Path(__file__).with_name(f"loader_{os.getpid()}").touch()
    if step == 9:
        time.sleep(1000)
    return Batch(torch.full((1,), step), torch.full((1,), step), None)

if __name__ == "__main__":
    print("begun", flush=True)
    with stop_requests() as stop, contextlib.closing(made_ahead(make, range(1000), 2)) as stream:
        for step, batch in enumerate(stream):
            assert int(batch.image_l) == step
            print(step, flush=True)
            while step == 5 and not stop.requested:
                time.sleep(0.01)
            if stop.requested:
                break
    print("saved", flush=True)
"""


class TestSignals:
    @pytest.fixture
    def training(self, tmp_path: Path) -> subprocess.Popen[str]:
        """A process group with two loader processes, the second of which is stuck in the tenth batch."""
        script = tmp_path / "training.py"
        script.write_text(TRAINING)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, str(script)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    @pytest.mark.parametrize("after", ["begun", "5"])
    def test_one_to_the_whole_group_is_answered_by_the_first_process_alone(
        self, training: subprocess.Popen[str], number: signal.Signals, after: str
    ) -> None:
        assert training.stdout is not None
        while (line := training.stdout.readline().strip()) != after:
            assert line, training.communicate()
        time.sleep(0.5)  # with "begun", the loaders are being started now
        os.killpg(training.pid, number)
        said, complaints = training.communicate(timeout=60)
        assert (training.returncode, complaints) == (0, "")
        assert said.splitlines()[-1] == "saved"

    def test_none_outlives_a_killed_parent(self, training: subprocess.Popen[str], tmp_path: Path) -> None:
        assert training.stdout is not None
        while (line := training.stdout.readline().strip()) != "5":
            assert line, training.communicate()
        latest = time.monotonic() + 30
        while len(loaders := list(tmp_path.glob("loader_*"))) < 2 and time.monotonic() < latest:
            time.sleep(0.05)
        training.kill()
        training.communicate(timeout=30)  # the loaders hold its pipes too
        numbers = [int(path.name.partition("_")[2]) for path in loaders]
        assert len(numbers) == 2
        while any(Path(f"/proc/{pid}").exists() for pid in numbers) and time.monotonic() < latest + 30:
            time.sleep(0.05)
        assert not [pid for pid in numbers if Path(f"/proc/{pid}").exists()]
