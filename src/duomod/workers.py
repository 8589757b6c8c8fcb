"""Several processes at once: fresh ones, lent a share of the cores, with one answer to a process that dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from duomod.console import plain
from duomod.errors import DuomodError

R = TypeVar("R")

#: What numpy, torch and ITK read when they are loaded.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)

#: What a worker that is told to end has left to remove half-written files.
_SECONDS_TO_TIDY = 2.0


@dataclass(frozen=True)
class Task(Generic[R]):
    """One piece of work.

    Attributes:
        name: What messages call it: a case, a file.
        call: Does it. Where it runs in another process it must be picklable: a module's function, or a ``partial`` of
            one.
    """

    name: str
    call: Callable[[], R]


def run_tasks(
    tasks: Iterable[Task[R]],
    workers: int,
    done: Callable[[int, R], None] | None = None,
    *,
    threads: int | None = None,
) -> list[R]:
    """Do tasks, several at a time, each in one of ``workers`` processes; with one worker, in this process.

    A task is taken only when a worker is free, so an iterator may decide by what ``done`` has seen what comes next.

    Args:
        tasks: What to do.
        workers: Processes.
        done: Called in this process with the position and the result of each task, as soon as it is finished.
        threads: Threads of numerical libraries in each worker; None: as many as in this process. Their number may
            change the last digit of what a matrix product returns.

    Returns:
        The results in the order of the tasks.

    Raises:
        DuomodError: a worker died; says at which task, or tasks.
        Exception: what a task or ``done`` raises; no further task is begun then. Ctrl-C also stops those that run.
    """
    results: dict[int, R] = {}

    def take(position: int, result: R) -> None:
        results[position] = result
        if done is not None:
            done(position, result)

    numbered = enumerate(tasks)
    if workers <= 1:
        for position, task in numbered:
            take(position, task.call())
    else:
        with _pool(workers, threads) as pool:
            _share_out(pool, numbered, workers, take)
    return [results[position] for position in sorted(results)]


def run_apart(task: Task[R]) -> R:
    """Do one task in a fresh process of its own, and wait for it.

    Raises:
        DuomodError: the process died.
        Exception: what the task raises.
    """
    results: list[R] = []
    with _pool(1, None) as pool:
        _share_out(pool, enumerate([task]), 1, lambda _, result: results.append(result))
    return results[0]


def _share_out(
    pool: ProcessPoolExecutor, numbered: Iterator[tuple[int, Task[R]]], workers: int, take: Callable[[int, R], None]
) -> None:
    """Keep every worker busy until there is no task left."""
    running: dict[Future[R], tuple[int, Task[R]]] = {}
    try:
        while True:
            while len(running) < workers and (following := next(numbered, None)) is not None:
                running[pool.submit(following[1].call)] = following
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                take(running[future][0], future.result())
                del running[future]
    except BrokenProcessPool:
        names = ", ".join(task.name for _, task in sorted(running.values(), key=lambda item: item[0]))
        raise DuomodError(
            f"a worker process ended unexpectedly while at {names} (perhaps for lack of memory); run the same command"
            " again with fewer workers or less in each: what is finished is kept"
        ) from None


@contextmanager
def _pool(workers: int, threads: int | None) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes: forked ones would inherit the locks of threads that they do not have."""
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(threads,))
    try:
        yield pool
    except KeyboardInterrupt:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _end(*_: object) -> None:
    """Leave, after the running task has tidied up."""
    # The pool takes an exit within a task for the task's result, and the process would wait for a next one for ever.
    signal.setitimer(signal.ITIMER_REAL, _SECONDS_TO_TIDY)
    sys.exit(1)


def _begin(threads: int | None) -> None:
    """Make a new process a good neighbour."""
    # Ctrl-C reaches every process of a terminal: only the first one answers, and ends the others by SIGTERM, as an
    # exception, so that half-written files are removed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    plain()
    if threads is None:
        return
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    # Libraries that the user's own script loaded have read the variables already.
    if (itk := sys.modules.get("SimpleITK")) is not None:
        itk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
