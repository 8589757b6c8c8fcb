"""Ctrl-C and SIGTERM: the running step is finished, the state saved, and the user told how to go on."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from duomod.errors import DuomodError
from duomod.flags import runnable

if TYPE_CHECKING:  # a pipeline stops in the same way and needs no torch
    from torch import nn

#: Seconds within which several signals are one request: a cluster tells a job's processes, and each its own children.
SAME_REQUEST = 1.0


class Interrupted(DuomodError):
    """Training was stopped by a signal after its state was saved."""

    exit_code = 130


@dataclass
class StopRequest:
    """Set by the first Ctrl-C or SIGTERM."""

    requested: bool = False


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn Ctrl-C and SIGTERM into a request that the loop honours after the running step; a later second one kills."""
    stop = StopRequest()
    first = 0.0

    def request(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if not stop.requested:
            stop.requested, first = True, time.monotonic()
        elif time.monotonic() - first > SAME_REQUEST:
            for known, handler in previous.items():
                signal.signal(known, handler)
            signal.raise_signal(number)

    previous: dict[signal.Signals, Any] = {}
    try:
        for known in (signal.SIGINT, signal.SIGTERM):
            previous[known] = signal.signal(known, request)
    except ValueError:  # not the main thread: whoever runs us there handles signals
        pass
    try:
        yield stop
    finally:
        for known, handler in previous.items():
            signal.signal(known, handler)


class _StoppedError(Exception):
    """Ends what a stoppable module is part of."""


@contextmanager
def stoppable(module: nn.Module, stop: StopRequest) -> Iterator[None]:
    """End the block, without an error, at the next use of a module after a request to stop."""

    def look(*_: object) -> None:
        if stop.requested:
            raise _StoppedError

    hook = module.register_forward_pre_hook(look)
    try:
        yield
    except _StoppedError:
        pass
    finally:
        hook.remove()


def resume_command() -> str:
    """The command line that was typed, with ``--resume``."""
    typed = [argument for argument in sys.argv[1:] if argument not in ("--overwrite", "--resume")]
    # ``train.py``, the original command name, does without the word.
    command = typed if "train" in typed[:2] else ["train", *typed]
    return runnable(["duomod", *command, "--resume"])
