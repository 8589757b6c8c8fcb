"""How long a viewer lives and what it leaves: it ends on request or with its parent, and takes its scan with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from duomod.locks import hold

_PREFIX = "duomod-view-"
#: In a viewer's temporary folder; locked while the viewer lives.
_LOCK = "alive"
#: Seconds between two looks at the parent.
_LOOK = 0.5
#: Seconds after which a folder that nobody has locked belongs to nobody; before, its viewer may be just starting. Where
#: the file system has no locks: after a day.
_STARTING, _FORGOTTEN = 60.0, 24 * 3600.0


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder that only this user can read and that goes when the block ends, however it ends.

    What killed viewers of this user left in the temporary folder is removed first.
    """
    place = Path(tempfile.gettempdir())
    for path in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another viewer was faster
            _sweep(path)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    try:
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            hold(handle)
            page = folder / "page"
            page.mkdir()
            yield page
        finally:
            os.close(handle)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove a viewer's folder if the viewer has ended."""
    found = folder.lstat()
    if folder.is_symlink() or not folder.is_dir() or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
        return
    age = time.time() - found.st_mtime
    try:
        handle = os.open(folder / _LOCK, os.O_RDWR)
    except FileNotFoundError:
        if age > _STARTING:
            shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        ours = hold(handle)
        if age > _FORGOTTEN if ours is None else ours:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM, a closed terminal (SIGHUP) and the end of the parent end the block as KeyboardInterrupt.

    Only the first of them does: what is tidied up then is not interrupted. Under ``nohup`` SIGHUP is ignored and the
    parent's end is none: who uses it wants a viewer that stays. In another thread than the main one nothing is changed:
    whoever runs us there handles signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stays = hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    # Windows has no SIGHUP; what whoever started us had us ignore stays ignored.
    known = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [number for number in known if signal.getsignal(number) is not signal.SIG_IGN]

    def end(number: int, frame: object) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in numbers}
    over = threading.Event()
    if not stays and hasattr(os, "getppid"):
        threading.Thread(target=_watch_parent, args=(os.getppid(), over), daemon=True).start()
    try:
        yield
    finally:
        over.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch_parent(parent: int, over: threading.Event) -> None:
    """Ask this process to end when its parent has: then another process has become its parent."""
    while not over.wait(_LOOK):
        if os.getppid() != parent:
            if not over.is_set():
                os.kill(os.getpid(), signal.SIGTERM)
            return
