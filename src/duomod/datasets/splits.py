"""Lists of cases: which are labelled, unlabelled, for evaluation and for test. Text files, one case id a line.

Labelled parts are beginnings of one order (see ``division``), which makes them nested.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from duomod.console import say
from duomod.datasets.case_names import case_id, check_case_id
from duomod.datasets.division import CaseFacts, Parts, beginning, divide
from duomod.datasets.folder import listed
from duomod.datasets.spec import DatasetSpec
from duomod.errors import InputError, nearest_name
from duomod.workspace import read_json, write_json, write_text

#: Shares of the training cases, in per cent, for which lists are always made.
RATIOS = (2.0, 5.0, 10.0, 20.0)

#: In ``splits/``: which lists were made or copied by duomod, from what seed, and the order of the labelled cases.
RECORD = "made.json"

#: Other names under which the evaluation list is found; the user's own comes before ours.
_EVAL_NAMES = ("eval", "valid", "val")


class CaseStore(Protocol):
    """A preprocessed data set, as far as splits need it (``preprocessing.store.Store``)."""

    @property
    def folder(self) -> Path: ...
    @property
    def spec(self) -> DatasetSpec: ...
    @property
    def cases(self) -> Mapping[str, CaseFacts]: ...


@dataclass(frozen=True)
class Split:
    """Case ids of the four parts, which share no case. ``name`` is that of the labelled list, e.g. ``labeled_5p``."""

    name: str
    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]
    eval: tuple[str, ...]
    test: tuple[str, ...]


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


def overlaps(parts: Mapping[str, Sequence[str]]) -> list[str]:
    """Say which cases are in more than one part, one sentence for each pair of parts."""
    found = []
    for (a, in_a), (b, in_b) in itertools.combinations(parts.items(), 2):
        both = sorted(set(in_a) & set(in_b))
        if both:
            found.append(f"{', '.join(both)}: in both {a} and {b}; a case may be in one part only")
    return found


def raw_list_problems(folder: Path, known: Sequence[str]) -> list[str]:
    """What is wrong with the lists in a raw data set's ``splits`` folder: unknown cases, overlaps."""
    problems: list[str] = []
    lists: dict[str, tuple[str, ...]] = {}
    for path in _texts(folder):
        try:
            lists[path.stem] = read_list(path)
        except InputError as error:
            problems += error.problems
            continue
        unknown = sorted(set(lists[path.stem]) - set(known))
        if unknown:
            problems.append(f"{path}: no such case: {', '.join(unknown)}.{nearest_name(unknown[0], known)}")
    held_out = {name: ids for name, ids in lists.items() if name in (*_EVAL_NAMES, "test")}
    found: dict[str, None] = dict.fromkeys(overlaps(held_out))
    for name in [name for name in lists if name.startswith("labeled_")]:
        parts = {key: lists[key] for key in (name, f"un{name}") if key in lists}
        found |= dict.fromkeys(overlaps({**parts, **held_out}))
    return problems + [f"{folder}: {text}" for text in found]


@dataclass
class _Lists:
    """The lists of one data set, and which of them are ours."""

    folder: Path
    seed: int | None = None
    order: tuple[str, ...] = ()
    made: dict[str, str] = field(default_factory=dict)
    copied: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, store: CaseStore) -> _Lists:
        folder = store.folder / "splits"
        path = folder / RECORD
        if not path.is_file():
            return cls(folder)
        data = read_json(path)
        try:
            return cls(folder, data["seed"], tuple(data["order"]), dict(data["made"]), dict(data["copied"]))
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{path}: damaged; delete it and run duomod preprocess again") from None

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.txt"

    def find(self, name: str) -> str | None:
        """The name under which a list exists (the user's before ours), None if it does not."""
        names = [n for n in (_EVAL_NAMES if name == "eval" else (name,)) if self.path(n).is_file()]
        return min(names, key=self.is_made, default=None)

    def is_made(self, name: str) -> bool:
        """Whether a list exists just as we made it; then it may be made again."""
        return self.path(name).is_file() and self.made.get(name) == _digest(self.path(name))

    def users(self, *names: str) -> dict[str, tuple[str, ...]]:
        """Those of the named lists that exist and are not of our making."""
        found = {name: self.find(name) for name in names}
        return {name: read_list(self.path(there)) for name, there in found.items() if there and not self.is_made(there)}

    def make(self, name: str, ids: Sequence[str]) -> None:
        """Write a list of ours."""
        write_text(self.path(name), _text(ids))
        self.made[name] = _digest(self.path(name))

    def write(self) -> None:
        record = {"seed": self.seed, "order": list(self.order), "made": self.made, "copied": self.copied}
        write_json(self.folder / RECORD, record)


def copy_lists(source: Path, store: CaseStore) -> None:
    """Copy the lists of a raw data set's ``splits`` folder. One that the user changed in the store is kept."""
    lists = _Lists.of(store)
    paths = _texts(source)
    for path in paths:
        name = "eval" if path.stem in _EVAL_NAMES else path.stem
        target, text = lists.path(name), _text(read_list(path))
        ours = lists.is_made(name) or (target.is_file() and lists.copied.get(name) == _digest(target))
        if target.is_file() and not ours:
            if target.read_text(encoding="utf-8") != text:
                say(f"{target}: was changed by hand and is kept; {path} is not used")
            continue
        write_text(target, text)
        lists.made.pop(name, None)
        lists.copied[name] = _digest(target)
    if paths:
        lists.write()


def make_splits(store: CaseStore, seed: int) -> None:
    """Write ``splits/{train,eval,test,labeled_2p,unlabeled_2p,...,labeled_all,unlabeled_all}.txt``.

    Lists that the user made, and those copied from the raw data set, are respected and never overwritten. What could
    not be done as the description says is said in a line.
    """
    lists = _Lists.of(store)
    present = [path.stem for path in _texts(lists.folder)]
    fixed = lists.users("train", "eval", "test")
    keep = {case for name in present if "labeled_" in name for ids in lists.users(name).values() for case in ids}
    parts = divide(
        store.cases,
        store.spec,
        seed,
        train=fixed.get("train"),
        evaluation=fixed.get("eval"),
        test=fixed.get("test"),
        keep=keep,
    )
    for note in parts.notes:
        say(f"splits: {note}")
    wanted: dict[str, Sequence[str]] = {"train": parts.train, "eval": parts.eval, "test": parts.test}
    for ratio in RATIOS:
        wanted |= _pair(f"labeled_{ratio:g}p", _share(store, parts, ratio), parts)
    wanted |= _pair("labeled_all", parts.order, parts)
    for name in present:
        # Lists made earlier, perhaps of another order, would not be nested with the new ones.
        if lists.is_made(name):
            lists.path(name).unlink()
    lists.made = {}
    for name, ids in wanted.items():
        users_choice = name.startswith("unlabeled_") and lists.path(name.removeprefix("un")).is_file()
        users_choice = users_choice and not lists.is_made(name.removeprefix("un"))
        # Beside a labelled list of the user's, the unlabelled cases are simply the others.
        if lists.find(name) is None and not users_choice:
            lists.make(name, ids)
    lists.seed, lists.order = seed, parts.order
    lists.write()


def part_sizes(store: CaseStore) -> dict[str, int]:
    """Number of training, evaluation and test cases that the lists name."""
    lists = _Lists.of(store)
    found = {name: lists.find(name) for name in ("train", "eval", "test")}
    return {name: len(read_list(lists.path(at))) if at else 0 for name, at in found.items()}


def resolve_split(
    store: CaseStore,
    *,
    labeled_ratio: float | None = None,
    labeled_count: int | None = None,
    split: str | None = None,
    seed: int = 0,
) -> Split:
    """Return the parts that a training run uses.

    Args:
        store: Preprocessed data set.
        labeled_ratio: Labelled share of all training cases, per cent; list ``labeled_<ratio>p``.
        labeled_count: Number of labelled cases; list ``labeled_<count>n``.
        split: Name of a list in ``splits/``. Without any of the three: all labelled cases (``labeled_all``) if the
            data set has unlabelled cases of its own, else 5 per cent.
        seed: For a data set whose splits have not been made yet; otherwise their order is used.

    Raises:
        InputError: more than one of the three; a list that does not exist (those that do are named); a listed case
            that does not exist or has no label; a case in two parts.
    """
    given = {"--labeled_ratio": labeled_ratio, "--labeled_count": labeled_count, "--split": split}
    chosen = [flag for flag, value in given.items() if value is not None]
    if len(chosen) > 1:
        raise InputError(f"{' and '.join(chosen)}: give only one of them")
    lists = _Lists.of(store)
    parts = _existing_parts(store, lists, seed)
    made: tuple[str, ...] | None = None
    wanted = 0
    if split is not None:
        name = split.removesuffix(".txt")
    elif labeled_count is not None:
        if labeled_count < 1:
            raise InputError(f"--labeled_count {labeled_count}: at least 1")
        name, wanted = f"labeled_{labeled_count}n", labeled_count
        made = beginning(parts.order, wanted, store.spec.split.same_person)
    elif labeled_ratio is None and any(not store.cases[case].labelled for case in parts.train if case in store.cases):
        name, made = "labeled_all", parts.order
    else:
        ratio = 5.0 if labeled_ratio is None else labeled_ratio
        if not 0 < ratio <= 100:
            raise InputError(f"--labeled_ratio {ratio:g}: per cent, above 0 and at most 100")
        name, wanted = f"labeled_{ratio:g}p", _wanted(parts, ratio)
        made = _share(store, parts, ratio)
    if made is not None and len(made) < wanted and not lists.users(name):
        say(f"split {name}: {wanted} labelled cases asked for, {len(made)} can be used of {len(parts.order)} there are")
    if made is not None and lists.find(name) is None:
        try:
            for key, ids in _pair(name, made, parts).items():
                if lists.find(key) is None:
                    lists.make(key, ids)
            if lists.seed is None:
                lists.seed, lists.order = seed, parts.order
            lists.write()
        except OSError:
            say(f"{lists.folder}: not writable, so the list {name} is not kept there")
    return _read_split(store, lists, name, made, parts)


def _existing_parts(store: CaseStore, lists: _Lists, seed: int) -> Parts:
    """The division that the existing lists describe; what they do not say is made as by :func:`make_splits`."""
    there = {name: lists.find(name) for name in ("train", "eval", "test")}
    found = {name: read_list(lists.path(at)) for name, at in there.items() if at is not None}
    fresh = divide(
        store.cases,
        store.spec,
        seed if lists.seed is None else lists.seed,
        train=found.get("train"),
        evaluation=found.get("eval"),
        test=found.get("test"),
    )
    if lists.seed is None:
        return fresh
    if seed not in (0, lists.seed):
        say(f"{lists.folder}: made with seed {lists.seed}; for another one run duomod preprocess with --seed {seed}")
    still = set(fresh.order)
    return Parts(tuple(case for case in lists.order if case in still), fresh.train, fresh.eval, fresh.test)


def _read_split(store: CaseStore, lists: _Lists, name: str, made: tuple[str, ...] | None, parts: Parts) -> Split:
    """Read one labelled list and what belongs to it, and check that all is consistent."""
    if lists.find(name) is not None:
        labelled = read_list(lists.path(name))
    elif made is not None:
        labelled = made
    else:
        available = [path.stem for path in _texts(lists.folder)]
        raise InputError(
            f"{lists.path(name)}: there is no split '{name}'.{nearest_name(name, available)}"
            f" Available: {', '.join(available) or 'none'}; or use --labeled_ratio or --labeled_count"
        )
    other = f"un{name}"
    if name.startswith("labeled_") and lists.find(other) is not None:
        unlabelled = read_list(lists.path(other))
    else:
        chosen = set(labelled)
        unlabelled = tuple(case for case in parts.train if case not in chosen)
    members = {name: labelled, "unlabelled": unlabelled, "eval": parts.eval, "test": parts.test}
    problems = []
    for part, ids in members.items():
        unknown = sorted(case for case in ids if case not in store.cases)
        if unknown:
            hint = nearest_name(unknown[0], store.cases)
            problems.append(f"{lists.folder}: {part} names cases that do not exist: {', '.join(unknown)}.{hint}")
        bare = sorted(case for case in ids if case in store.cases and not store.cases[case].labelled)
        if bare and part != "unlabelled":
            problems.append(f"{lists.folder}: {part} names cases that have no label: {', '.join(bare)}")
    problems += [f"{lists.folder}: {text}" for text in overlaps(members)]
    train = lists.users("train").get("train", ())
    problems += [
        f"{lists.folder}: {text}"
        for held in ("eval", "test")
        for text in overlaps({"train": train, held: members[held]})
    ]
    if not labelled:
        problems.append(f"{lists.folder}: split '{name}' has no labelled case; add labelled scans, preprocess again")
    if problems:
        raise InputError(problems)
    return Split(name, tuple(sorted(labelled)), tuple(sorted(unlabelled)), parts.eval, parts.test)


def _wanted(parts: Parts, ratio: float) -> int:
    return max(1, int(len(parts.train) * ratio / 100 + 0.5))


def _share(store: CaseStore, parts: Parts, ratio: float) -> tuple[str, ...]:
    """The labelled cases of a ratio: relative to all training cases, as far as there are labels."""
    return beginning(parts.order, _wanted(parts, ratio), store.spec.split.same_person)


def _pair(name: str, labelled: Sequence[str], parts: Parts) -> dict[str, Sequence[str]]:
    """A labelled list and the unlabelled one that goes with it."""
    chosen = set(labelled)
    rest = tuple(case for case in parts.train if case not in chosen)
    return {name: sorted(labelled), f"un{name}": rest}


def _texts(folder: Path) -> list[Path]:
    """Lists in a folder by name; hidden files may be half written."""
    return sorted(path for path in folder.glob("*.txt") if not path.name.startswith("."))


def _text(ids: Sequence[str]) -> str:
    return "".join(f"{case_id}\n" for case_id in ids)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
