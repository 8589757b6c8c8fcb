"""A folder that a command writes as a whole: it lists its files, and only what it lists and is unchanged may go."""

from __future__ import annotations

import ctypes
import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256 as digest
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from duomod.console import say
from duomod.errors import InputError
from duomod.workspace import part_folder, read_json, sha256, write_json

#: So many names are given of what is in the way.
_NAMED = 10
#: Arguments of the Linux call ``renameat2``: paths from the current folder on; swap them.
_HERE, _EXCHANGE = -100, 2
#: What that call says where a file system or a system cannot swap.
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


class _Record(BaseModel):
    """What a folder's record says about the folder; it holds more that is not looked at here."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    duomod: str
    files: dict[str, str]
    sealed: str


def write_record(folder: Path, name: str, content: dict[str, Any]) -> None:
    """Write a folder's record, last of its files.

    Args:
        folder: It is complete but for the record.
        name: Of the record, in the folder.
        content: What else the record holds. Added are ``files``, the SHA-256 of every file by its path in the folder,
            and ``sealed``, the SHA-256 of the record without it.
    """
    files = {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    # As it will be read: tuples are lists then, and all keys texts.
    content = json.loads(json.dumps({**content, "files": files}, allow_nan=False))
    write_json(folder / name, {**content, "sealed": _seal(content)})


def check_replaceable(output: Path, record: str, what: str) -> None:
    """Make sure that nothing is lost if a new folder takes the place of ``output``.

    Args:
        output: Where the folder is to be written: absent, empty, or an older one with nothing else in it.
        record: Name of the record by which an older one is known.
        what: What the folder is, in words: ``report``.

    Raises:
        InputError: something else is there; names each file that the record does not list, or that was changed since.
    """
    if not output.exists():
        return
    advice = "; choose another --output, or move it away"
    if not output.is_dir():
        raise InputError(f"{output}: exists and is not a folder{advice}")
    if output.samefile(Path.cwd()):
        raise InputError(f"{output}: is the current folder, which cannot be replaced; choose a folder inside it")
    if os.path.ismount(output):
        raise InputError(f"{output}: is a mount point, which cannot be replaced; choose a folder inside it")
    if foreign := _foreign(output, record, what):
        more = [f"{output}: and {len(foreign) - _NAMED} more"] if len(foreign) > _NAMED else []
        raise InputError([f"{text}{advice}" for text in foreign[:_NAMED]] + more)


@contextmanager
def replaced_folder(output: Path, record: str, what: str) -> Iterator[Path]:
    """Yield a new folder beside ``output``; on success it takes its place in one step, on failure it is removed.

    An older one stands until the new one is complete, whenever the process is killed. It is removed only if its record
    (``record``, by :func:`write_record`) lists all that is in it; see :func:`check_replaceable`.

    Raises:
        InputError: something else has come into ``output`` meanwhile.
    """
    output = Path(os.path.realpath(output))
    with part_folder(output.parent) as parts:
        folder = parts / output.name
        folder.mkdir()
        yield folder
        check_replaceable(output, record, what)
        if not output.exists():
            folder.rename(output)
            return
        _exchange(folder, output)
        # Now ``folder`` is the older one. Between the last look at it and its removal a file may have come in.
        if any(folder.iterdir()) and _foreign(folder, record, what):
            kept = _free_name(output)
            folder.rename(kept)
            say(f"{kept}: the older {what}, kept because something was written into it meanwhile")


def _foreign(folder: Path, record: str, what: str) -> list[str]:
    """Sentences about all in a folder that its record does not list, or not as it is now."""
    if not any(folder.iterdir()):
        return []
    if not (folder / record).is_file():
        names = sorted(path.name for path in folder.iterdir())
        shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
        return [f"{folder}: exists and is not a {what} of duomod (it holds {shown})"]
    try:
        files = _listed(folder / record, what)
    except InputError as error:
        return list(error.problems)
    folders = {parent.as_posix() for name in files for parent in Path(name).parents}
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() and not path.is_symlink():
            if name not in folders:
                found.append(f"{path}: a folder that is not of the {what}")
        elif name == record:
            continue
        elif name not in files or path.is_symlink():
            found.append(f"{path}: is not of the {what} in whose folder it is")
        elif sha256(path) != files[name]:
            found.append(f"{path}: was changed after the {what} was written")
    return found


def _listed(path: Path, what: str) -> dict[str, str]:
    """The files that a record lists.

    Raises:
        InputError: it is no record, or was changed.
    """
    content = read_json(path)
    try:
        record = _Record.model_validate(content)
    except ValidationError:
        raise InputError(f"{path}: not the list of files of a {what} of this version of duomod") from None
    if record.sealed != _seal({key: value for key, value in content.items() if key != "sealed"}):
        raise InputError(f"{path}: was changed after the {what} was written")
    return record.files


def _seal(content: dict[str, Any]) -> str:
    return digest(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _exchange(new: Path, old: Path) -> None:
    """Let two folders swap places: in one step on Linux; elsewhere the older one is ``<name>.older`` for a moment."""
    if _swapped(new, old):
        return
    aside = _free_name(old)
    old.rename(aside)
    try:
        new.rename(old)
    except OSError:
        aside.rename(old)
        raise
    aside.rename(new)


def _swapped(first: Path, second: Path) -> bool:
    """Swap two paths in one step.

    Returns:
        False where the system cannot.
    """
    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, TypeError, AttributeError):
        return False
    if swap(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT:
        return False
    raise OSError(code, os.strerror(code), str(second))


def _free_name(path: Path) -> Path:
    """A name beside a path that nothing has: ``report.older``, ``report.older-2``, ..."""
    names = (path.with_name(f"{path.name}.older{f'-{number}' if number > 1 else ''}") for number in range(1, 10**6))
    return next(name for name in names if not name.exists())
