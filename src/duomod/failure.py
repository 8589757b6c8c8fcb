"""How a command that failed ends: a line or two for the user, an exit code, and a log of what nobody foresaw."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from duomod.errors import DuomodError, InputError, explain_disk_error, in_one_line
from duomod.version import __version__

#: Exit code after Ctrl-C, as shells have it.
INTERRUPTED = 130
#: Begins the traceback that torch puts into the words of an error that comes from a loader's process.
_FROM_WORKER = "Traceback (most recent call last)"


def tell(error: BaseException, debug: bool = False) -> int:
    """Say on standard error how a command ended; whatever happens here, nothing is raised.

    Args:
        error: What ended it.
        debug: Also print the traceback.

    Returns:
        The exit code: 2 for what the user can mend, 130 after Ctrl-C, else 1.
    """
    if debug and not isinstance(error, KeyboardInterrupt):
        _print("".join(traceback.format_exception(error)))
    if isinstance(error, DuomodError) and error.exit_code == INTERRUPTED:
        _print(str(error))
        return INTERRUPTED
    if isinstance(error, KeyboardInterrupt):
        complain("interrupted")
        return INTERRUPTED
    if isinstance(error, DuomodError):
        complain(_own_words(error))
        return error.exit_code
    explanation = explain_disk_error(error) if isinstance(error, OSError) else None
    if explanation is not None:
        complain(explanation)
        return InputError.exit_code
    words = _memory(error) or f"something unforeseen failed: {_name_and_words(error)}"
    log = write_log(error)
    where = f"the details are in {log}" if log else "the details could not be written"
    complain(f"{words}\n{where}; --debug prints them")
    return DuomodError.exit_code


def complain(message: str) -> None:
    """Print a message as an error, its further lines indented."""
    _print("error: " + "\n       ".join(message.splitlines()))


def _print(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody is there to read it
        if sys.stderr is not None:
            print(text, file=sys.stderr)


@contextlib.contextmanager
def threads_told() -> Iterator[None]:
    """Meanwhile, an error that ends a thread is told in the same way; it does not end the command."""

    def told(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is not None and not isinstance(failed.exc_value, SystemExit):
            tell(failed.exc_value)

    before, threading.excepthook = threading.excepthook, told
    try:
        yield
    finally:
        threading.excepthook = before


def write_log(error: BaseException) -> Path | None:
    """Write what is known of an error into a file that only its owner can read; None where there is no place for it.

    It holds the command line, the folder, versions and the traceback: no variables and nothing of the environment.
    """
    facts = (
        f"duomod {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
        f"{datetime.now().astimezone().isoformat(sep=' ', timespec='seconds')}\n{shlex.join(sys.argv)}\n\n"
    )
    content = facts + "".join(traceback.format_exception(error))
    for folder in (None, os.path.expanduser("~")):
        with contextlib.suppress(OSError):
            handle, name = tempfile.mkstemp(prefix="duomod-", suffix=".log", dir=folder)
            with open(handle, "w", encoding="utf-8", errors="backslashreplace") as log:
                log.write(content)
            return Path(name).absolute()
    return None


def _memory(error: BaseException) -> str | None:
    """A sentence about a lack of memory, if it was one: Python, torch on the CPU and torch on a GPU each have a way."""
    kind = type(error).__name__
    if not (isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)):
        return None
    device = " on the GPU" if kind == "OutOfMemoryError" else ""
    detail = f" ({words})" if (words := _own_words(error).partition("\n")[0]) else ""
    return f"not enough memory{device}{in_one_line(detail)}; use a smaller patch or batch, or fewer workers"


def _own_words(error: BaseException) -> str:
    """An error's message, without the traceback of another process that torch puts before it."""
    text = str(error)
    if _FROM_WORKER in text:
        text = text.rpartition(f"{type(error).__name__}: ")[2] or text.strip().rpartition("\n")[2]
    return text.strip()


def _name_and_words(error: BaseException) -> str:
    first = in_one_line(_own_words(error).partition("\n")[0])
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
