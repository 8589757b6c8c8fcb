"""The files in a data set's ``splits`` folder: text, one case id a line; and the record of which are duomod's own."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from duomod.datasets.case_names import case_id, check_case_id
from duomod.datasets.folder import listed
from duomod.errors import InputError
from duomod.locks import hold
from duomod.workspace import read_json, write_json, write_text

#: In ``splits/``: which lists were made or copied by duomod, from what seed, and the order of the labelled cases.
RECORD = "made.json"

#: Other names under which the evaluation list is found; the user's own comes before ours.
EVAL_NAMES = ("eval", "valid", "val")


def chosen_cases(path: Path | None) -> tuple[str, ...] | None:
    """The cases of a list that a user gave to choose by; None where none was given.

    Raises:
        InputError: as :func:`read_list`, or it is empty.
    """
    if path is None:
        return None
    cases = read_list(path)
    if not cases:
        raise InputError(f"{path}: lists no case; write one case id a line")
    return cases


def read_list(path: Path) -> tuple[str, ...]:
    """Read case ids, one a line. Blank lines, surrounding blanks and an ending such as ``.nii.gz`` are dropped.

    Raises:
        InputError: unreadable, an id occurs twice, or one cannot be an id (a path, control characters).
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list of case ids ({error})") from None
    ids: list[str] = []
    for line in lines:
        name = case_id(line.strip())
        if name:
            ids.append(name)
    problems = []
    twice = sorted(name for name, count in Counter(ids).items() if count > 1)
    if twice:
        problems.append(f"{path}: listed twice: {listed(twice)}")
    for name in dict.fromkeys(ids):
        try:
            check_case_id(name)
        except ValueError as error:
            problems.append(f"{path}: {error}")
    if problems:
        raise InputError(problems)
    return tuple(ids)


def lists_in(folder: Path) -> list[Path]:
    """Lists in a folder by name; hidden files may be half written."""
    return sorted(path for path in folder.glob("*.txt") if not path.name.startswith("."))


def as_text(ids: Sequence[str]) -> str:
    """A list's text."""
    return "".join(f"{case_id}\n" for case_id in ids)


class _Record(BaseModel):
    """What ``made.json`` holds. Digests are SHA-256 of a list's file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    seed: int | None = None
    order: tuple[str, ...] = ()
    made: dict[str, str] = {}
    copied: dict[str, str] = {}


@dataclass
class Lists:
    """The lists of one preprocessed data set, and which of them are ours.

    Whoever is killed here must not leave a list of ours that looks like the user's. So what is replaced goes first,
    then the record is written with the digests of what comes, and the lists come last: each that is there is in the
    record at any moment, and those that are missing are made by the next run.
    """

    folder: Path
    seed: int | None = None
    order: tuple[str, ...] = ()
    made: dict[str, str] = field(default_factory=dict)
    copied: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, store_folder: Path) -> Lists:
        folder = store_folder / "splits"
        path = folder / RECORD
        if not path.is_file():
            return cls(folder)
        try:
            record = _Record.model_validate(read_json(path))
        except (InputError, ValidationError):
            raise InputError(
                f"{path}: damaged; delete it and those lists beside it that you did not write yourself, and run duomod"
                " preprocess again"
            ) from None
        return cls(folder, record.seed, record.order, dict(record.made), dict(record.copied))

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.txt"

    def find(self, name: str) -> str | None:
        """The name under which a list exists (the user's before ours), None if it does not."""
        names = [n for n in (EVAL_NAMES if name == "eval" else (name,)) if self.path(n).is_file()]
        return min(names, key=self.is_made, default=None)

    def is_made(self, name: str) -> bool:
        """Whether a list exists just as we made it; then it may be made again."""
        return self.path(name).is_file() and self.made.get(name) == _digest(self.path(name))

    def is_copied(self, name: str) -> bool:
        """Whether a list exists just as it was copied from the raw data set."""
        return self.path(name).is_file() and self.copied.get(name) == _digest(self.path(name))

    def _is_copy_of(self, name: str, text: str) -> bool:
        return self.is_copied(name) and self.copied[name] == _digest_of(text) and name not in self.made

    def has_users(self, name: str) -> bool:
        """Whether a list exists and is not of our making."""
        there = self.find(name)
        return there is not None and not self.is_made(there)

    def users(self, *names: str) -> dict[str, tuple[str, ...]]:
        """Those of the named lists that exist and are not of our making."""
        found = {name: self.find(name) for name in names}
        return {name: read_list(self.path(there)) for name, there in found.items() if there and not self.is_made(there)}

    def copy(self, texts: Mapping[str, str]) -> None:
        """Put copies of the raw data set's lists in the place of ours and of earlier copies."""
        changed = {name: text for name, text in texts.items() if not self._is_copy_of(name, text)}
        with self._alone():
            for name, text in changed.items():
                self.path(name).unlink(missing_ok=True)
                self.made.pop(name, None)
                self.copied[name] = _digest_of(text)
            if changed:
                self.write()
            self._write_missing(texts)

    def replace(self, wanted: Mapping[str, str], seed: int, order: tuple[str, ...]) -> None:
        """Put lists of ours in the place of all that were made before."""
        digests = {name: _digest_of(text) for name, text in wanted.items()}
        with self._alone():
            for path in lists_in(self.folder):
                # Lists made earlier, perhaps of another order, would not be nested with the new ones.
                if self.is_made(path.stem) and self.made[path.stem] != digests.get(path.stem):
                    path.unlink()
            self.made, self.seed, self.order = digests, seed, order
            self.write()
            self._write_missing(wanted)

    def add(self, wanted: Mapping[str, str], seed: int, order: tuple[str, ...]) -> None:
        """Write those lists that are missing, while other trainings may do the same."""
        with self._alone():
            now = Lists.of(self.folder.parent)
            self.seed, self.order, self.made, self.copied = now.seed, now.order, now.made, now.copied
            missing = {name: text for name, text in wanted.items() if self.find(name) is None}
            self.made |= {name: _digest_of(text) for name, text in missing.items()}
            if self.seed is None:
                self.seed, self.order = seed, order
            self.write()
            self._write_missing(missing)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait until no other process changes the lists."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            hold(handle, wait=True)
            yield
        finally:
            os.close(handle)

    def _write_missing(self, wanted: Mapping[str, str]) -> None:
        for name, text in wanted.items():
            if not self.path(name).is_file():
                write_text(self.path(name), text)

    def write(self) -> None:
        """Write the record."""
        record = {"seed": self.seed, "order": list(self.order), "made": self.made, "copied": self.copied}
        write_json(self.folder / RECORD, record)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest_of(text: str) -> str:
    """That of the file that :func:`write_text` makes of a text."""
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
