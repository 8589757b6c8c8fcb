"""Lists of cases: which are labelled, unlabelled, for evaluation and for test. Text files, one case id a line.

Labelled parts are beginnings of one order (see ``division``), which makes them nested.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from duomod.console import say
from duomod.datasets.case_names import shown
from duomod.datasets.division import CaseFacts, Parts, beginning, divide
from duomod.datasets.folder import listed
from duomod.datasets.spec import DatasetSpec
from duomod.datasets.split_lists import EVAL_NAMES, RECORD, as_text, lists_in
from duomod.datasets.split_lists import Lists as _Lists
from duomod.datasets.split_lists import read_list as read_list
from duomod.errors import InputError, nearest_name

#: Shares of the training cases, in per cent, for which lists are always made.
RATIOS = (2.0, 5.0, 10.0, 20.0)


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


def overlaps(parts: Mapping[str, Sequence[str]]) -> list[str]:
    """Say which cases are in more than one part, one sentence for each pair of parts."""
    found = []
    for (a, in_a), (b, in_b) in itertools.combinations(parts.items(), 2):
        both = sorted(set(in_a) & set(in_b))
        if both:
            found.append(f"{listed(both)}: in both {a} and {b}; a case may be in one part only")
    return found


def raw_list_problems(folder: Path, known: Sequence[str]) -> list[str]:
    """What is wrong with the lists in a raw data set's ``splits`` folder: unknown cases, overlaps."""
    problems: list[str] = []
    lists: dict[str, tuple[str, ...]] = {}
    ours = lists_in(folder)
    others = [shown(path.name) for path in sorted(folder.glob("*")) if path not in ours and path.name != RECORD]
    if others:
        say(f"{folder}: not read (lists end in .txt): {listed(others)}")
    for path in ours:
        try:
            lists[path.stem] = read_list(path)
        except InputError as error:
            problems += error.problems
            continue
        unknown = sorted(set(lists[path.stem]) - set(known))
        if unknown:
            problems.append(f"{path}: no such case: {listed(unknown)}.{nearest_name(unknown[0], known)}")
    held_out = {name: ids for name, ids in lists.items() if name in (*EVAL_NAMES, "test")}
    found: dict[str, None] = dict.fromkeys(overlaps(held_out))
    for name in [name for name in lists if name.startswith("labeled_")]:
        parts = {key: lists[key] for key in (name, f"un{name}") if key in lists}
        found |= dict.fromkeys(overlaps({**parts, **held_out}))
    return problems + [f"{folder}: {text}" for text in found]


def kept_list_problems(store_folder: Path) -> list[str]:
    """What is wrong with the lists in a store that are not of our making, and so will be used."""
    try:
        lists = _Lists.of(store_folder)
    except InputError as error:
        return list(error.problems)
    problems: list[str] = []
    for path in lists_in(lists.folder):
        if not (lists.is_made(path.stem) or lists.is_copied(path.stem)):
            try:
                read_list(path)
            except InputError as error:
                problems += error.problems
    return problems


def copy_lists(source: Path, store: CaseStore) -> None:
    """Copy the lists of a raw data set's ``splits`` folder. One that the user changed in the store is kept."""
    lists = _Lists.of(store.folder)
    texts: dict[str, str] = {}
    for path in lists_in(source):
        name = "eval" if path.stem in EVAL_NAMES else path.stem
        target, text = lists.path(name), as_text(read_list(path))
        if not target.is_file() or lists.is_made(name) or lists.is_copied(name):
            texts[name] = text
        elif target.read_text(encoding="utf-8") != text:
            say(f"{target}: was changed by hand and is kept; {path} is not used")
    if texts:
        lists.copy(texts)


def make_splits(store: CaseStore, seed: int) -> None:
    """Write ``splits/{train,eval,test,labeled_2p,unlabeled_2p,...,labeled_all,unlabeled_all}.txt``.

    Lists that the user made, and those copied from the raw data set, are respected and never overwritten. What could
    not be done as the description says is said in a line.
    """
    lists = _Lists.of(store.folder)
    present = [path.stem for path in lists_in(lists.folder)]
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

    def users_choice(name: str) -> bool:
        # Beside a labelled list of the user's, the unlabelled cases are simply the others.
        beside = name.startswith("unlabeled_") and lists.has_users(name.removeprefix("un"))
        return lists.has_users(name) or beside

    ours = {name: as_text(ids) for name, ids in wanted.items() if not users_choice(name)}
    lists.replace(ours, seed, parts.order)


def part_sizes(store: CaseStore) -> dict[str, int]:
    """Number of training, evaluation and test cases that the lists name."""
    lists = _Lists.of(store.folder)
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
    lists = _Lists.of(store.folder)
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
            pair = {key: as_text(ids) for key, ids in _pair(name, made, parts).items()}
            lists.add(pair, seed, parts.order)
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
        available = [path.stem for path in lists_in(lists.folder)]
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
            problems.append(f"{lists.folder}: {part} names cases that do not exist: {listed(unknown)}.{hint}")
        bare = sorted(case for case in ids if case in store.cases and not store.cases[case].labelled)
        if bare and part != "unlabelled":
            problems.append(f"{lists.folder}: {part} names cases that have no label: {listed(bare)}")
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
