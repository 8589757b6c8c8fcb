"""Batches made ahead by other processes, which end with this one and let it alone answer signals."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler

from torch.utils.data import DataLoader, Dataset

from duomod.errors import DuomodError, InputError
from duomod.sampling.batch import Batch
from duomod.workers import end_with_parent, how_it_ended

#: Batches that each process makes ahead.
_AHEAD = 2

#: How long a process may take to end, after its connection was lost or its work is over.
_SECONDS_TO_DIE = 1.0

_STOPPING = (signal.SIGINT, signal.SIGTERM)

_MEMORY = "give more shared memory (/dev/shm; docker run --shm-size=1g), or use fewer --set sampling.workers (0: none)"


@dataclass(frozen=True)
class _Failure:
    """What went wrong in a process.

    Attributes:
        error: The exception, pickled; None where that is impossible.
        text: It in words.
        trace: Where it came from.
        sending: It is about handing a batch over, not about making it.
    """

    error: bytes | None
    text: str
    trace: str
    sending: bool


class _Packed(Dataset[object]):
    """Item ``s`` is the batch of step ``s``, ready to be handed over, or what went wrong.

    torch would do it behind our back: what fails there is printed, and the batch waited for without end.
    """

    def __init__(self, make: Callable[[int], Batch]) -> None:
        self.make = make

    def __getitem__(self, step: int) -> object:
        sending = False
        try:
            batch = self.make(step)
            sending = True
            return bytes(ForkingPickler.dumps(batch))
        except Exception as error:
            try:
                pickled = pickle.dumps(error)
                pickle.loads(pickled)
            except Exception:
                pickled = None
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            return _Failure(pickled, text, traceback.format_exc(), sending)


def made_ahead(make: Callable[[int], Batch], steps: range, workers: int) -> Generator[Batch]:
    """The batches of ``steps``, in order, made by other processes.

    Close the iterator, or come to its end: that ends them. They also end with this process, even if it is killed.

    Args:
        make: Makes a step's batch; picklable.
        steps: Which.
        workers: Number of processes, at least 1.

    Raises:
        Exception: what ``make`` raises.
        InputError: there is no room in shared memory, or the system does not let processes be begun.
        DuomodError: a process died; says how.
    """
    loader = DataLoader(
        _Packed(make),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        multiprocessing_context="spawn",
        prefetch_factor=_AHEAD,
        worker_init_fn=_begin,
    )
    others = set(multiprocessing.active_children())
    try:
        # What it needs of the system first: torch's own attempt would leave the remains of one behind.
        multiprocessing.get_context("spawn").Lock()
        with _deaf_children():
            packed = iter(loader)
    except (OSError, ImportError) as error:
        raise InputError(f"loader processes cannot be started ({error}): {_MEMORY}") from None
    processes = set(multiprocessing.active_children()) - others
    survived = _survived(packed, processes)
    del packed
    try:
        for pack in survived:
            yield _unpacked(pack, processes)
    finally:
        # Not asked to end, as torch does: they answer no such request, and have nothing to save.
        for process in processes:
            process.kill()
        survived.close()
        del survived
        # Threads that torch has for its queues; if this process ends before they do, Python complains of semaphores.
        for thread in threading.enumerate():
            if thread.name == "QueueFeederThread":
                thread.join(_SECONDS_TO_DIE)


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes begun here do not get SIGINT and SIGTERM, from their first moment on.

    Ctrl-C in a terminal and the end of a cluster's job reach every process of a group; this one answers, and what it
    was waiting for still comes.
    """
    resource_tracker.ensure_running()  # it would open our ears again
    children = signal.getsignal(signal.SIGCHLD)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        # torch has a dead process raise an error wherever this one happens to be. It is also noticed where one waits.
        if children is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, children)


def _survived(packed: Iterator[object], processes: set[BaseProcess]) -> Generator[object]:
    """The same, with the reason where a process dies."""
    try:
        yield from packed
    except RuntimeError as error:
        raise _death(processes) or DuomodError(f"the loader processes failed: {error}") from None


def _death(processes: set[BaseProcess]) -> DuomodError | None:
    """What ended a process that is no more; None if all live."""
    ended = wait([process.sentinel for process in processes], timeout=_SECONDS_TO_DIE)
    for process in processes:
        if process.sentinel in ended:
            process.join()
    code = next((process.exitcode for process in processes if process.exitcode), None)
    if code is None:
        return None
    if code == -signal.SIGBUS:
        return InputError(f"a loader process ended ({how_it_ended(code)}): {_MEMORY}")
    return DuomodError(
        f"a loader process ended unexpectedly ({how_it_ended(code)}); --resume goes on from the last saved"
        " state, perhaps with fewer --set sampling.workers"
    )


def _unpacked(pack: object, processes: set[BaseProcess]) -> Batch:
    if isinstance(pack, _Failure):
        if pack.sending:
            raise InputError(f"a loader process cannot hand over a batch ({pack.text}): {_MEMORY}")
        error: Exception = pickle.loads(pack.error) if pack.error else DuomodError(f"a loader process: {pack.text}")
        error.add_note(pack.trace)
        raise error
    assert isinstance(pack, bytes)
    try:
        batch: Batch = pickle.loads(pack)
    except (OSError, EOFError, RuntimeError) as error:
        reason = str(error) or type(error).__name__
        raise _death(processes) or InputError(f"a batch cannot be taken over ({reason}): {_MEMORY}") from None
    return batch


def _begin(number: int) -> None:
    """Make a new process one that ends with its parent."""
    for known in _STOPPING:
        signal.signal(known, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
