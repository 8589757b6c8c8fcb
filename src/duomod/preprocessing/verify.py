"""Whether a data set's arrays are still what was written: each file is read once, before a training or a prediction."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duomod.console import progress
from duomod.errors import InputError
from duomod.preprocessing.arrays import checksum
from duomod.preprocessing.store import Store
from duomod.workspace import read_json, write_json

#: In the data set's folder: size and times of the files that were found right, so that they are not read again.
VERIFIED = ".verified.json"

#: What is looked at of a case. A file is one of them.
KINDS = ("image", "label", "coords")


def verify(store: Store, case_ids: Iterable[str], kinds: Sequence[str] = KINDS) -> None:
    """Check the files of some cases: shape, type and length, then the content by its checksum.

    Of a data set that has no checksums (made by an earlier version, or by hand) the values are looked at instead: label
    values below the number of classes, finite intensities. A file whose size and times are those it had when it was
    found right is not read again; a copy has times of its own.

    Args:
        store: The data set.
        case_ids: Cases.
        kinds: Of ``image``, ``label`` and ``coords``.

    Raises:
        InputError: lists every file that is missing, damaged, or changed since it was written.
        OSError: one may not be read.
    """
    seen = _Seen(store.folder)
    files = [
        (case_id, kind, path)
        for case_id in dict.fromkeys(case_ids)
        for kind, path in store.files(case_id).items()
        if kind in kinds
    ]
    problems: list[str] = []
    unread: list[tuple[str, str, Path]] = []
    for case_id, kind, path in files:
        try:
            _open(store, case_id, kind)
            if not seen.knows(path, store.written_checksum(case_id, kind)):
                unread.append((case_id, kind, path))
        except InputError as error:
            problems += error.problems
    if unread:
        with progress("checking the data", len(unread)) as advance:
            for case_id, kind, path in unread:
                found = _problem(store, case_id, kind, path)
                if found is None:
                    seen.add(path, store.written_checksum(case_id, kind))
                else:
                    problems.append(found)
                advance(case_id)
    seen.write()
    if problems:
        raise InputError(problems)


def _open(store: Store, case_id: str, kind: str) -> NDArray[Any] | None:
    """The array of an image or a label; all that can be told without reading it is checked."""
    if kind == "coords":
        store.coords(case_id)
        return None
    return store.image(case_id) if kind == "image" else store.label(case_id)


def _problem(store: Store, case_id: str, kind: str, path: Path) -> str | None:
    written = store.written_checksum(case_id, kind)
    if written is not None:
        if checksum(path) == written:
            return None
        return (
            f"{path}: is not what was written (its checksum differs); delete it and run duomod preprocess again, or,"
            f" where it was changed on purpose, remove its crc32 from {store.folder / 'dataset.json'}"
        )
    array = _open(store, case_id, kind)
    if array is None:
        return None
    if kind == "label":
        largest = int(array.max())
        if largest >= store.spec.num_classes:
            return f"{path}: label value {largest}, but there are {store.spec.num_classes} classes; preprocess again"
    elif not (np.isfinite(array.min()) and np.isfinite(array.max())):
        return f"{path}: intensities that are not finite; preprocess again"
    return None


class _Seen:
    """Which files were found right: path -> size, time of writing, time of any change, checksum."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._changed = False
        self._stamps: dict[str, Any] = {}
        with contextlib.suppress(InputError):  # never written, or damaged: all files are read
            found = read_json(folder / VERIFIED)
            self._stamps = found if isinstance(found, dict) else {}

    def _stamp(self, path: Path, crc32: str | None) -> list[Any]:
        now = path.stat()
        return [now.st_size, now.st_mtime_ns, now.st_ctime_ns, crc32]

    def knows(self, path: Path, crc32: str | None) -> bool:
        return bool(self._stamps.get(self._name(path)) == self._stamp(path, crc32))

    def add(self, path: Path, crc32: str | None) -> None:
        self._stamps[self._name(path)] = self._stamp(path, crc32)
        self._changed = True

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def write(self) -> None:
        if self._changed:
            with contextlib.suppress(OSError):  # a folder that may not be written: the next run reads all again
                write_json(self.folder / VERIFIED, self._stamps)
