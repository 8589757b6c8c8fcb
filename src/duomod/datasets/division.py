"""Dividing a data set into training, evaluation and test cases, and putting the labelled ones in order; no files."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from duomod.datasets.spec import DatasetSpec
from duomod.seeding import generator

#: Shares held out where the folder that the description names has no labelled case.
_FALLBACK = {"test": 0.2, "eval": 0.1}

#: At most one in so many labelled cases is held out, so that small data sets keep enough for training.
_AT_MOST_ONE_IN = {"test": 4, "eval": 3}

#: Groups of cases that are tried in the search for the smallest one with every class; some seconds.
_MOST_TRIALS = 5_000_000

Unit = tuple[str, ...]


class CaseFacts(Protocol):
    """What a division needs to know of a case (``preprocessing.store.CaseRecord``)."""

    @property
    def role(self) -> str: ...
    @property
    def labelled(self) -> bool: ...
    @property
    def voxels(self) -> tuple[int, ...] | None: ...


@dataclass(frozen=True)
class Parts:
    """A divided data set.

    Attributes:
        order: Labelled training cases; every labelled part is a beginning of it.
        train: All training cases, labelled or not.
        eval: Evaluation (validation) cases.
        test: Test cases.
        notes: What could not be done as the description says, in sentences.
    """

    order: tuple[str, ...]
    train: tuple[str, ...]
    eval: tuple[str, ...]
    test: tuple[str, ...]
    notes: tuple[str, ...] = ()


def divide(
    cases: Mapping[str, CaseFacts],
    spec: DatasetSpec,
    seed: int,
    *,
    train: Sequence[str] | None = None,
    evaluation: Sequence[str] | None = None,
    test: Sequence[str] | None = None,
    keep: Collection[str] = (),
) -> Parts:
    """Divide a data set by its description's rules.

    Args:
        cases: All cases.
        spec: Gives the rules, the classes, and which scans are of one person.
        seed: Of everything drawn at random.
        train: Training cases, where a list says so; else those with role ``Tr``.
        evaluation: Evaluation cases, where a list says so.
        test: Test cases, where a list says so.
        keep: Cases that must stay in training.

    Returns:
        Parts that share no case and no person (given lists are taken as they are).
    """
    training = sorted(case for case, facts in cases.items() if facts.role == "Tr") if train is None else list(train)
    notes: list[str] = []
    given = {*(evaluation or ()), *(test or ())}
    partners = _with_partners(given, spec)
    pool = [case for case in training if case in cases and cases[case].labelled and case not in partners]
    cover, rest = _order(cases, spec, pool, seed)
    free = [unit for unit in rest if not set(keep).intersection(unit)]
    roles_taken: set[str] = set()
    if test is None:
        fallback_taken = {spec.split.eval} if evaluation is None else set()
        test, role = _held_out(cases, "test", spec.split.test, fallback_taken, given, len(pool), free, notes)
        roles_taken |= {role} if role else set()
    if evaluation is None:
        rule = spec.split.eval
        left = len(pool) - len(set(test) & set(pool))
        evaluation, _ = _held_out(cases, "eval", rule, roles_taken, {*given, *test}, left, free, notes)
    held = {*evaluation, *test}
    out = _with_partners(held, spec)
    dropped = sorted((out - held) & set(training))
    if dropped:
        notes.append(f"left out of training, because another scan of the same person is held out: {', '.join(dropped)}")
    first = [unit for unit in cover if not out.intersection(unit)]
    others = [unit for unit in rest if not out.intersection(unit)]
    if spec.split.order == "seeded":
        # Several scans of one person come last, so that a short beginning seldom ends between them.
        others.sort(key=lambda unit: len(unit) > 1)
    order = tuple(itertools.chain.from_iterable(first + others))
    return Parts(
        order, tuple(c for c in sorted(training) if c not in out), tuple(evaluation), tuple(test), tuple(notes)
    )


def beginning(order: Sequence[str], count: int, same_person: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """The first ``count`` of the ordered cases; some fewer (at least one person) where a person would be cut in two."""
    count = min(count, len(order))
    person = {case: index for index, group in enumerate(same_person) for case in group}

    def cuts(n: int) -> bool:
        return 0 < n < len(order) and order[n - 1] in person and person.get(order[n]) == person[order[n - 1]]

    shorter = count
    while cuts(shorter):
        shorter -= 1
    while shorter == 0 and cuts(count):
        count += 1
    return tuple(order[: shorter or count])


def _units(ids: Sequence[str], spec: DatasetSpec) -> list[Unit]:
    """Group the scans of each person."""
    person = {case: index for index, group in enumerate(spec.split.same_person) for case in group}
    groups: dict[object, list[str]] = {}
    for case in sorted(ids):
        groups.setdefault(person.get(case, case), []).append(case)
    return [tuple(group) for group in groups.values()]


def _with_partners(ids: Collection[str], spec: DatasetSpec) -> set[str]:
    """The cases and all further scans of the same persons."""
    chosen = set(ids)
    return chosen.union(*(group for group in spec.split.same_person if chosen.intersection(group)))


def _order(
    cases: Mapping[str, CaseFacts], spec: DatasetSpec, pool: Sequence[str], seed: int
) -> tuple[list[Unit], list[Unit]]:
    """Units that together have every class that occurs, as few as a greedy choice finds, and the other units."""
    units = _units(pool, spec)
    if spec.split.order == "sorted":
        return [], units
    shuffled = [units[i] for i in generator(seed, "split").permutation(len(units))]
    # One person's several scans are second choice: they would fill a small labelled part.
    shuffled.sort(key=len)
    present = {
        unit: {label for case in unit for label, count in enumerate(cases[case].voxels or ()) if count and label}
        for unit in units
    }
    missing = set().union(*present.values())
    cover: list[Unit] = []
    everything = frozenset(missing)
    while missing:
        best = max(shuffled, key=lambda unit: len(present[unit] & missing))
        cover.append(best)
        missing -= present[best]
    cover = _smaller_cover(shuffled, present, everything, len(cover)) or cover
    chosen_units = set(cover)
    rest = [unit for unit in units if unit not in chosen_units]
    return cover, [rest[i] for i in generator(seed, "split rest").permutation(len(rest))]


def _smaller_cover(
    units: Sequence[Unit], present: Mapping[Unit, set[int]], wanted: frozenset[int], size: int
) -> list[Unit]:
    """A cover of fewer than ``size`` units, if one of at most three exists: a greedy choice can miss it.

    Where there are so many kinds of cases that it would take more than :data:`_MOST_TRIALS`, it is not looked for.
    """
    first_with = {sum(1 << label for label in present[unit]): unit for unit in reversed(units)}
    everything = sum(1 << label for label in wanted)
    if len(first_with) ** 2 > _MOST_TRIALS:
        return []
    # A case whose classes are all in another one's is never needed; few kinds of cases are left.
    kinds = [kind for kind in first_with if not any(kind & other == kind != other for other in first_with)]
    for count in range(1, min(size, 4)):
        if math.comb(len(kinds), count) > _MOST_TRIALS:
            break
        if group := _first_cover(kinds, everything, count, max(map(int.bit_count, kinds))):
            return [first_with[kind] for kind in group]
    return []


def _first_cover(kinds: Sequence[int], missing: int, count: int, most: int) -> tuple[int, ...]:
    """The first ``count`` of the kinds, in their order, that have all missing classes; none has more than ``most``."""
    for place, kind in enumerate(kinds):
        rest = missing & ~kind
        if count == 1:
            if not rest:
                return (kind,)
        elif rest.bit_count() <= most * (count - 1) and (
            others := _first_cover(kinds[place + 1 :], rest, count - 1, most)
        ):
            return (kind, *others)
    return ()


def _held_out(
    cases: Mapping[str, CaseFacts],
    part: Literal["eval", "test"],
    rule: str | float,
    roles_taken: Collection[object],
    ids_taken: Collection[str],
    labelled: int,
    free: list[Unit],
    notes: list[str],
) -> tuple[tuple[str, ...], str | None]:
    """Choose evaluation or test cases: a folder's labelled cases, or units from the end of ``free`` (removed there)."""
    wanted: float
    if isinstance(rule, str):
        other = "Ts" if rule == "Va" else "Va"
        # Evaluation comes second and must not take what test has; test leaves to evaluation what its rule names.
        candidates = [rule, other] if part == "test" else [r for r in (rule, other) if r not in roles_taken]
        for role in candidates:
            found = sorted(c for c, f in cases.items() if f.role == role and f.labelled and c not in ids_taken)
            if found and (role == rule or role not in roles_taken):
                if role != rule:
                    notes.append(f"no labelled {rule} case: the {len(found)} labelled {role} cases are for {part}")
                return tuple(found), role
        wanted = _FALLBACK[part]
        reason = f"no labelled {rule} case"
    else:
        wanted, reason = rule, ""
    if wanted <= 0:
        return (), None
    count = max(1, int(wanted * labelled + 0.5)) if wanted < 1 else int(wanted)
    limit = min(count, labelled // _AT_MOST_ONE_IN[part])
    chosen: list[str] = []
    left: list[Unit] = []
    for unit in reversed(free):
        if len(chosen) + len(unit) <= limit:
            chosen += unit
        else:
            left.append(unit)
    free[:] = reversed(left)
    if len(chosen) < count or reason:
        what = f"{len(chosen)} of {labelled} labelled training cases are held out for {part}"
        why = reason or f"{count} would leave too few for training"
        notes.append(f"{what} ({why})")
    return tuple(sorted(chosen)), None
