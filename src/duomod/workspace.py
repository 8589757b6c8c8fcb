"""Where files lie and how they are written: whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from duomod.documents import parse_json as parse_json
from duomod.documents import parse_yaml as parse_yaml
from duomod.documents import read_json as read_json
from duomod.documents import read_json_lines as read_json_lines
from duomod.documents import read_text as read_text
from duomod.documents import read_yaml as read_yaml
from duomod.errors import DuomodError
from duomod.locks import hold
from duomod.version import __version__

#: In the folder of a run: its settings, what it logs, and its label maps.
CONFIG, METRICS, PREDICTIONS = "config.yaml", "metrics.jsonl", "predictions"
#: Written last by a training: it has come to its end.
TRAINED = "train_manifest.json"
#: In a folder of predictions: what makes them, and which cases there will be.
PREDICTED = "prediction.json"

#: Names of files and folders that are being written: the start, eight random characters, a suffix.
_PART = ".part-"
_IS_PART = re.compile(r"\.part-[a-z0-9_]{8}(\..*)?")

#: Where the file system has no locks, a part that nobody has written to for so long belongs to nobody (seconds).
_FORGOTTEN = 24 * 3600.0

#: What is tried to be written to learn why a write failed, bytes: more than the rest of a disk's last block.
_TRIAL = 1 << 20


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; on success it becomes ``target`` in one step, on failure it is removed.

    The temporary name keeps the target's full suffix (``.nii.gz``), so that writers that go by the suffix work, and
    starts with a dot, so that no reader of the folder takes it for a result. It is locked while this process lives:
    see :func:`sweep_parts`.

    Raises:
        OSError: it cannot be written; with the target's name and the system's reason, also where the writer had none.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep_once(target.parent)
    suffix = "".join(target.suffixes[-2:]) if target.name.endswith(".gz") else target.suffix
    try:
        handle, temporary = _new_part(target.parent, suffix)
    except OSError as error:
        error.filename = str(target)
        raise
    try:
        # mkstemp makes files only the owner can read; results should follow the user's umask like any other file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    except DuomodError:
        raise
    except Exception as error:
        raise _with_reason(error, temporary, target) from None
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def _new_part(folder: Path, suffix: str) -> tuple[int, Path]:
    """Make an empty part and lock it; a sweep that found it before it was locked may have removed it."""
    while True:
        handle, name = tempfile.mkstemp(prefix=_PART, suffix=suffix, dir=folder)
        hold(handle, wait=True)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)


def _with_reason(error: Exception, temporary: Path, target: Path) -> Exception:
    """An error of writing, with the target's name and the reason; any other error as it is.

    Some writers keep the reason to themselves (numpy: "40000 requested and 1000 written"), or raise errors of their
    own: the next write meets it again.
    """
    if isinstance(error, OSError) and error.errno is not None:
        # A failed write names no file, or the temporary one; people need to know which disk is full.
        if error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(target), None
        return error
    try:
        with open(temporary, "ab") as stream:
            stream.write(bytes(_TRIAL))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as reason:
        reason.filename = str(target)
        return reason
    if isinstance(error, OSError):
        return OSError(errno.EIO, f"it could not be written whole ({error})", str(target))
    return error


@contextmanager
def part_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder of a temporary name in ``parent``, which is removed at the end with what is still in it."""
    parent.mkdir(parents=True, exist_ok=True)
    _sweep_once(parent)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PART, dir=parent))
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # a sweep found it before it was locked
            continue
        hold(handle, wait=True)
        if folder.exists():
            break
        os.close(handle)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def sweep_parts(*folders: Path) -> None:
    """Remove the parts that killed processes left directly in folders; those that a living process writes stay."""
    for folder in folders:
        if not folder.is_dir():
            continue
        for path in [path for path in folder.iterdir() if _IS_PART.fullmatch(path.name)]:
            # One that another process sweeps or finishes meanwhile, or that is not ours to remove, is none of our work.
            with contextlib.suppress(OSError):
                _sweep(path)


@cache
def _sweep_once(folder: Path) -> None:
    """Before the first thing that this process writes into a folder: remove what a killed one left there."""
    sweep_parts(folder)


def _sweep(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        ours = hold(handle)
        forgotten = time.time() - os.fstat(handle).st_mtime > _FORGOTTEN
        if not (forgotten if ours is None else ours):
            return
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    finally:
        os.close(handle)


def write_text(target: Path, text: str) -> None:
    """Write a UTF-8 text file atomically.

    Bytes of a file name that are no text are written as ``\\udcff``, which in JSON reads as the same name again.
    """
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(target: Path, data: Any) -> None:
    """Write a JSON file atomically; NaN and infinity are refused."""
    write_text(target, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def sha256(source: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with open(source, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_manifest(folder: Path, stage: str, **facts: Any) -> None:
    """Record in ``folder/<stage>_manifest.json`` what made its content: command line, versions, time and ``facts``."""
    write_json(
        folder / f"{stage}_manifest.json",
        {
            "stage": stage,
            "command": sys.argv,
            "duomod": __version__,
            "python": platform.python_version(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            **facts,
        },
    )
