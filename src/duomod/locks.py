"""One process per folder: a lock that ends with the process, however that ends, and a note of who holds it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from duomod.console import say
from duomod.documents import read_json
from duomod.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: The note in a folder that a process has for itself; it is removed at the end.
LOCK = ".duomod.lock"

#: What a process needs at most between taking a lock and saying who it is.
_SECONDS_TO_WRITE = 1.0


def hold(handle: int, wait: bool = False) -> bool | None:
    """Lock an open file or folder for this process, until the handle is closed or the process ends.

    Args:
        handle: File descriptor.
        wait: Until whoever has it lets go.

    Returns:
        Whether it is ours now; None where the file system has no locks.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return True


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Have a folder to oneself; it is made if it is not there.

    Whoever was killed here holds nothing: the system lets go of its lock, and its note is taken over.

    Args:
        folder: The folder that only one process may write to.
        what: What runs in it, for the message to a second one: ``a training``.

    Raises:
        InputError: another process has the folder; names its host and number.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / LOCK
    handle = _taken(note, what)
    try:
        yield
    finally:
        note.unlink(missing_ok=True)
        os.close(handle)
        if made:
            with contextlib.suppress(OSError):  # what was to be done left something in it, as it should
                folder.rmdir()


def _taken(note: Path, what: str) -> int:
    """Take the lock and write down who has it; returns the open file."""
    while True:
        try:
            handle, new = os.open(note, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            handle, new = os.open(note, os.O_RDWR | os.O_CREAT, 0o666), False
        try:
            ours = hold(handle)
            if ours is False or (ours is None and not new and not _is_stale(_holder(note))):
                raise InputError(_refusal(note, certain=ours is False))
            # The one before may have removed the file between our opening and our locking it.
            if ours is None or _is_at(note, handle):
                _write_note(note, handle, what)
                if ours is None:
                    say(f"{note.parent}: this file system has no locks; a note ({LOCK}) keeps a second process away")
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _write_note(note: Path, handle: int, what: str) -> None:
    started = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    holder = {
        "what": what,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": started,
        "command": shlex.join(sys.argv),
    }
    try:
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(holder).encode())
    except OSError as error:
        note.unlink(missing_ok=True)
        error.filename = str(note)
        raise


def _is_at(path: Path, handle: int) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _holder(note: Path) -> dict[str, Any]:
    """Who holds a folder, as its note says; empty where it says nothing."""
    latest = time.monotonic() + _SECONDS_TO_WRITE
    while True:
        try:
            holder = read_json(note)
        except InputError:
            holder = {}
        known = isinstance(holder, dict) and isinstance(holder.get("pid"), int) and 0 < holder["pid"] < 2**31
        holder = holder if known else {}
        # A new holder has not written yet: the note is empty, or still that of a killed one.
        if (holder and not _is_stale(holder)) or time.monotonic() > latest:
            return holder
        time.sleep(0.02)


def _is_stale(holder: dict[str, Any]) -> bool:
    """Whether the process in a note has ended; one on another host is taken to run."""
    if not holder or holder.get("host") != socket.gethostname():
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _refusal(note: Path, certain: bool) -> str:
    holder = _holder(note)
    who = f"process {holder['pid']} on {holder.get('host')}" if holder else "another process"
    since = f", since {holder['started']}" if "started" in holder else ""
    text = f"{note.parent}: {holder.get('what', 'a command')} is running in this folder ({who}{since});"
    text += " wait for its end, or choose another folder"
    return text if certain else f"{text}; if it does not run any more, delete {note}"
