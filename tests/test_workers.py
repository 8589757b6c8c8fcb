"""Tasks in several processes: order, laziness, errors, a death that is told by name, and an end by Ctrl-C."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from workshop import eventually

from duomod.errors import DuomodError, InputError
from duomod.experiments.records import born
from duomod.workers import Task, run_apart, run_tasks


def double(value: int, seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return 2 * value


def refuse(value: int) -> int:
    raise InputError([f"{value}: wrong", f"{value}: wrong again"])


def die(seconds: float = 0.0) -> int:
    time.sleep(seconds)
    os._exit(9)


def end_by(number: int) -> int:
    time.sleep(0.5)
    os.kill(os.getpid(), number)
    time.sleep(60)
    return 0


def environment(_: int) -> tuple[str | None, int]:
    import SimpleITK as sitk

    return os.environ.get("OMP_NUM_THREADS"), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_tasks(workers: int) -> None:
    tasks = [Task(str(i), partial(double, i, 0.2 if i == 0 else 0.0)) for i in range(6)]
    told: dict[int, int] = {}
    assert run_tasks(tasks, workers, told.__setitem__) == [0, 2, 4, 6, 8, 10]
    assert told == {i: 2 * i for i in range(6)}


def test_each_is_told_as_soon_as_it_is_finished() -> None:
    finished: list[int] = []
    run_tasks(
        [Task("slow", partial(double, 0, 1.5)), Task("fast", partial(double, 1))],
        2,
        lambda position, _: finished.append(position),
    )
    assert finished == [1, 0]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_comes_next_may_depend_on_what_has_been_seen(workers: int) -> None:
    seen: list[int] = []

    def tasks() -> Iterator[Task[int]]:
        for value in range(10):
            if len(seen) >= 3:
                return
            yield Task(str(value), partial(double, value))

    results = run_tasks(tasks(), workers, lambda _, result: seen.append(result))
    assert 3 <= len(results) <= 3 + workers - 1
    assert results == [2 * value for value in range(len(results))]


def test_no_task_is_no_result() -> None:
    assert run_tasks([], 1) == run_tasks([], 4) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_through_whole_and_stops_what_has_not_begun(workers: int) -> None:
    begun: list[int] = []

    def tasks() -> Iterator[Task[int]]:
        for value in range(20):
            begun.append(value)
            yield Task(str(value), partial(refuse, value) if value == 2 else partial(double, value, 0.2))

    with pytest.raises(InputError) as caught:
        run_tasks(tasks(), workers)
    assert caught.value.problems == ("2: wrong", "2: wrong again")
    assert len(begun) < 20


def test_a_death_is_told_with_the_tasks_that_were_running() -> None:
    tasks = [
        Task("first", partial(double, 1)),
        Task("deadly", partial(die, 0.5)),
        Task("other", partial(double, 1, 20)),
    ]
    with pytest.raises(DuomodError, match="ended unexpectedly while at deadly, other ") as caught:
        run_tasks(tasks, 2)
    assert caught.value.exit_code == 1


def tidy_slowly(mark: Path) -> int:
    mark.write_text("begun")
    try:
        time.sleep(60)
    finally:
        mark.write_text("tidied")
    return 0


def test_the_death_of_an_idle_process_ends_one_in_the_middle_of_a_task(tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    def kill(position: int, result: int) -> None:
        while not mark.exists():
            time.sleep(0.02)
        time.sleep(0.5)  # the idle one waits for a next task by now, and holds the lock of the queue
        os.kill(result, signal.SIGKILL)

    tasks = [Task("busy", partial(tidy_slowly, mark)), Task("idle", os.getpid)]
    began = time.monotonic()
    with pytest.raises(DuomodError, match="while at busy "):
        run_tasks(tasks, 2, kill)
    assert time.monotonic() - began < 40
    assert mark.read_text() == "tidied"


def test_a_task_apart_has_a_process_of_its_own() -> None:
    assert run_apart(Task("pid", os.getpid)) != os.getpid()
    with pytest.raises(InputError, match="7: wrong"):
        run_apart(Task("seven", partial(refuse, 7)))
    with pytest.raises(DuomodError, match="while at the last one "):
        run_apart(Task("the last one", die))


def test_libraries_get_the_threads_they_are_lent() -> None:
    tasks = [Task(str(i), partial(environment, i)) for i in range(2)]
    assert run_tasks(tasks, 2, threads=3) == [("3", 3)] * 2


@pytest.mark.parametrize(
    ("call", "cause"),
    [
        (die, r"\(exit code 9\)"),
        (partial(end_by, signal.SIGKILL), r"\(SIGKILL, which the system sends where memory runs out\)"),
        (partial(end_by, signal.SIGSEGV), r"\(SIGSEGV\)"),
        (partial(end_by, signal.SIGTERM), r"\(told to end by another program\)"),
    ],
    ids=["exit", "kill", "crash", "told"],
)
def test_the_cause_of_a_death_is_told(call: Callable[[], int], cause: str) -> None:
    with pytest.raises(DuomodError, match=f"while at deadly {cause}; run the same command"):
        run_apart(Task("deadly", call))


def test_processes_that_cannot_be_started_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def too_many(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("multiprocessing.synchronize.SemLock.__init__", full)
        with pytest.raises(DuomodError, match=r"shared memory \(/dev/shm\) is full.*No space.*make room there"):
            run_tasks([Task("a", os.getpid)], 2)
    with monkeypatch.context() as patch:
        patch.setattr("multiprocessing.synchronize.SemLock.__init__", too_many)
        with pytest.raises(DuomodError, match=r"started \(\[Errno \d+\] Too many open files\); use --workers 1"):
            run_tasks([Task("a", os.getpid)], 2)
    monkeypatch.setattr("multiprocessing.popen_spawn_posix.Popen._launch", full)
    with pytest.raises(DuomodError, match=r"no further worker process can be started \(No space.*fewer --workers"):
        run_tasks([Task("a", os.getpid)], 2)


SCRIPT = """
import os
import time
from functools import partial
from pathlib import Path
from duomod.termination import termination_raises
from duomod.workers import Task, run_tasks
from duomod.workspace import atomic_path

def slow(folder, name):
    with atomic_path(folder / name) as path:
        path.write_text("half")
        (folder / f"{name}.begun").write_text(str(os.getpid()))
        time.sleep(60)

if __name__ == "__main__":
    here = Path.cwd()
    try:
        with termination_raises():
            run_tasks([Task(name, partial(slow, here, name)) for name in "abcd"], 2)
    except KeyboardInterrupt:
        print("interrupted")
"""


def under_way(folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A command with two workers, each in the middle of writing a file; and the workers' numbers."""
    (folder / "script.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Started in the background, a shell's children would not hear Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert eventually(lambda: len([path for path in folder.glob("*.begun") if path.read_text()]) == 2)
    return process, [int(path.read_text()) for path in folder.glob("*.begun")]


@pytest.mark.parametrize("to_all", [False, True], ids=["to the command", "to the whole terminal"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_is_ended_leaves_no_worker_and_nothing_half_written(
    number: signal.Signals, to_all: bool, tmp_path: Path
) -> None:
    process, workers = under_way(tmp_path)
    began = time.monotonic()
    (os.killpg if to_all else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=50)
    assert eventually(lambda: all(born(worker) is None for worker in workers), 20)
    assert time.monotonic() - began < 20
    assert process.returncode == {signal.SIGINT: 0, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    assert out.strip() == ("interrupted" if number == signal.SIGINT else "")
    assert "Traceback" not in err
    # A worker that is itself killed cannot tidy up: the next run does.
    left = {"a.begun", "b.begun", "script.py"}
    found = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".part-")}
    assert found == left
    if not (to_all and number == signal.SIGKILL):
        assert {path.name for path in tmp_path.iterdir()} == left


def test_a_worker_that_is_deep_in_a_library_does_not_outlive_its_parent(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(DEEP)
    process = subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path, start_new_session=True)
    assert eventually(lambda: (tmp_path / "begun").is_file() and (tmp_path / "begun").read_text() != "")
    process.kill()
    process.wait()
    assert eventually(lambda: born(int((tmp_path / "begun").read_text())) is None, 20)


DEEP = """
import ctypes, os
from duomod.workers import Task, run_apart

def deep():
    open("begun", "w").write(str(os.getpid()))
    libc = ctypes.CDLL(None)
    for _ in range(60):
        libc.sleep(60)

if __name__ == "__main__":
    run_apart(Task("deep", deep))
"""
