"""Where files lie and how they are written: whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from duomod.errors import InputError
from duomod.version import __version__

#: Written last by a training: it has come to its end.
TRAINED = "train_manifest.json"
#: In a folder of predictions: what makes them, and which cases there will be.
PREDICTED = "prediction.json"


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; on success it becomes ``target`` in one step, on failure it is removed.

    The temporary name keeps the target's full suffix (``.nii.gz``), so that writers that go by the suffix work, and
    starts with a dot, so that no reader of the folder takes it for a result.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    suffix = "".join(target.suffixes[-2:]) if target.name.endswith(".gz") else target.suffix
    handle, name = tempfile.mkstemp(prefix=".part-", suffix=suffix, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        # mkstemp makes files only the owner can read; results should follow the user's umask like any other file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    except OSError as error:
        # A failed write names no file; people need to know which disk is full.
        error.filename = str(target)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write a UTF-8 text file atomically.

    Bytes of a file name that are no text are written as ``\\udcff``, which in JSON reads as the same name again.
    """
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(target: Path, data: Any) -> None:
    """Write a JSON file atomically; NaN and infinity are refused."""
    write_text(target, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(source: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{source}: file not found") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{source}: not a valid JSON file ({error})") from None


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
