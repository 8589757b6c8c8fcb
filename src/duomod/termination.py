"""SIGTERM as an exception: what is half written is removed and workers are ended, as after Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(SystemExit):
    """SIGTERM was sent to this process; ``code`` is the exit code that shells give it."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


@contextmanager
def termination_raises() -> Iterator[None]:
    """Within the block, SIGTERM raises :class:`Terminated`; a second one ends the process at once."""

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    before = signal.getsignal(signal.SIGTERM)
    if before == signal.SIG_IGN:  # whoever started us wants it so
        yield
        return
    try:
        signal.signal(signal.SIGTERM, end)
    except ValueError:  # not the main thread: whoever runs us there handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
