"""Several processes at once: fresh ones, lent a share of the cores, with one answer to a process that dies."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
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

#: Exit code of a worker that was told to end, and the other ways in which such a one ends.
_TOLD_TO_END = 128 + signal.SIGTERM
_AS_TOLD = (_TOLD_TO_END, -signal.SIGTERM, -signal.SIGALRM)

#: What creating a lock that processes share fails with where there is no place for it.
_NO_SHARED_MEMORY = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENOENT, errno.ENOSYS)

#: What signals that end a worker mostly mean.
_MEANING = {
    signal.SIGKILL: ", which the system sends where memory runs out",
    signal.SIGBUS: ": a file that was being read is cut, or there is no room for what was written",
}


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
    Workers end with this process, however it ends: by themselves within seconds, after removing half-written files.

    Args:
        tasks: What to do.
        workers: Processes.
        done: Called in this process with the position and the result of each task, as soon as it is finished.
        threads: Threads of numerical libraries in each worker; None: as many as in this process. Their number may
            change the last digit of what a matrix product returns.

    Returns:
        The results in the order of the tasks.

    Raises:
        DuomodError: a worker died: says of what, and at which task, or tasks; or none could be started.
        Exception: what a task or ``done`` raises; no further task is begun then. Ctrl-C and SIGTERM (where it is an
            exception) also stop those that run.
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
    pool: _Pool, numbered: Iterator[tuple[int, Task[R]]], workers: int, take: Callable[[int, R], None]
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
        cause = pool.cause_of_death()
        pool.end()
        names = ", ".join(task.name for _, task in sorted(running.values(), key=lambda item: item[0]))
        raise DuomodError(
            f"a worker process ended unexpectedly while at {names} ({cause}); run the same command"
            " again with fewer workers or less in each: what is finished is kept"
        ) from None


class _Pool:
    """Fresh processes: forked ones would inherit the locks of threads that they do not have."""

    def __init__(self, workers: int, threads: int | None) -> None:
        self._others = set(multiprocessing.active_children())
        self._processes: set[BaseProcess] = set()
        context = multiprocessing.get_context("spawn")
        try:
            self.executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(threads,))
        except (OSError, ImportError, NotImplementedError) as error:
            of_memory = not isinstance(error, OSError) or error.errno in _NO_SHARED_MEMORY
            place = "shared memory (/dev/shm) is full or missing, or may not be written: " if of_memory else ""
            what_to_do = "make room there, or use --workers 1" if of_memory else "use --workers 1"
            raise DuomodError(f"no worker processes can be started ({place}{error}); {what_to_do}") from None

    def submit(self, call: Callable[[], R]) -> Future[R]:
        try:
            future = self.executor.submit(_do, call)
        except OSError as error:
            raise DuomodError(
                f"no further worker process can be started ({error.strerror or error}); use fewer --workers"
            ) from None
        self._processes |= set(multiprocessing.active_children()) - self._others
        return future

    def cause_of_death(self) -> str:
        """What ended the process that is missing; the pool has told the others to end by now."""
        latest = time.monotonic() + _SECONDS_TO_TIDY  # the system may need a moment to say it
        while True:
            found = [process.exitcode for process in self._processes]
            codes = [code for code in found if code is not None]
            code = next((code for code in codes if code not in _AS_TOLD), None)
            if code is not None or len(codes) == len(found) or time.monotonic() > latest:
                break
            time.sleep(0.01)
        if code is None:
            return "told to end by another program" if codes else "perhaps for lack of memory"
        return how_it_ended(code)

    def end(self) -> None:
        """Tell the processes to end, and kill those that do not; if this is interrupted, at once."""
        latest = time.monotonic() + _SECONDS_TO_TIDY + 1
        try:
            for process in self._processes:
                process.terminate()
            for process in self._processes:
                process.join(max(0.0, latest - time.monotonic()))
        finally:
            for process in self._processes:
                process.kill()


def how_it_ended(code: int) -> str:
    """An exit code of a process in words, and what it mostly means."""
    if code >= 0:
        return f"exit code {code}"
    number = signal.Signals(-code)
    return f"{number.name}{_MEANING.get(number, '')}"


@contextmanager
def _pool(workers: int, threads: int | None) -> Iterator[_Pool]:
    pool = _Pool(workers, threads)
    try:
        yield pool
    except (KeyboardInterrupt, SystemExit):
        pool.end()
        raise
    finally:
        pool.executor.shutdown(cancel_futures=True)


def _do(call: Callable[[], R]) -> R:
    """Do a task in a worker."""
    try:
        return call()
    except SystemExit:
        # The pool would take this for the task's result, and let the process wait for a next one.
        os._exit(_TOLD_TO_END)


def _end(*_: object) -> None:
    """Leave, after the running task has tidied up."""
    signal.setitimer(signal.ITIMER_REAL, _SECONDS_TO_TIDY)
    sys.exit(_TOLD_TO_END)


def end_with_parent() -> None:
    """End this process when the one that began it is gone, however it went."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    main = threading.main_thread().ident
    assert main is not None
    # To that thread, so that it is woken where it waits.
    signal.pthread_kill(main, signal.SIGTERM)
    time.sleep(_SECONDS_TO_TIDY)  # it may be deep in a library, where it does not hear
    os._exit(_TOLD_TO_END)


def _begin(threads: int | None) -> None:
    """Make a new process a good neighbour."""
    # Ctrl-C reaches every process of a terminal: only the first one answers, and ends the others by SIGTERM, as an
    # exception, so that half-written files are removed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=end_with_parent, daemon=True).start()
    plain()
    if threads is None:
        return
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    # Libraries that the user's own script loaded have read the variables already.
    if (itk := sys.modules.get("SimpleITK")) is not None:
        itk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
