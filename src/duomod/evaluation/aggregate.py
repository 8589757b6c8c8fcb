"""One method over its seeds: mean ± std, tail averages, and per-case values averaged over seeds for paired tests."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict

from duomod.console import say
from duomod.datasets.case_names import case_id
from duomod.datasets.spec import load_spec, numbered_classes
from duomod.errors import InputError
from duomod.evaluation.metrics import Metric
from duomod.evaluation.results import FloatArray, ResultTable
from duomod.evaluation.seeds import doubts
from duomod.evaluation.settings import AggregateOptions
from duomod.evaluation.table_file import listed, read_table

AVERAGING = "classes within a case first, then cases, then seeds; undefined values are left out"
WORST_CASES = 5
#: A column with more values than this describes cases, not groups of them.
_MOST_GROUPS = 50

#: A number that may be undefined; JSON has no NaN, so it is null there.
Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
Quartiles = tuple[Number, Number, Number]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Spread(_Record):
    """Mean and standard deviation over seeds, in the metric's own unit."""

    mean: Number
    std: Number


class MetricSummary(_Record):
    """One metric: per class, over the foreground, over the tail.

    ``quartiles`` and ``class_quartiles`` are the lower quartile, median and upper quartile over cases of the values
    averaged over seeds: of the foreground mean, and of each class.
    """

    metric: Metric
    per_class: tuple[Spread, ...]
    foreground: Spread
    tail: Spread | None
    quartiles: Quartiles
    class_quartiles: tuple[Quartiles, ...]


class GroupSummary(_Record):
    """The foreground means of the cases that share a value in a table of cases."""

    column: str
    value: str
    cases: int
    foreground: dict[str, Spread]


class Summary(_Record):
    """What was found; ``metrics`` by column prefix (``Dice``, ``ASD``)."""

    base: str
    seeds: tuple[str, ...]
    cases: tuple[str, ...]
    classes: tuple[str, ...]
    tail_classes: tuple[str, ...]
    metrics: dict[str, MetricSummary]
    ddof: int
    averaging: str = AVERAGING
    conventions: dict[str, Any]
    organs: dict[str, dict[str, int]]
    missing: tuple[str, ...]
    notes: tuple[str, ...] = ()
    groups: tuple[GroupSummary, ...] = ()
    worst_cases: tuple[tuple[str, str], ...] = ()

    @property
    def method(self) -> str:
        """The method's name: that of its folder."""
        return Path(self.base).resolve().name


def mean_defined(values: FloatArray, axis: int) -> FloatArray:
    """Mean of the defined (finite) values along an axis; NaN where there is none."""
    found = np.isfinite(values)
    count = found.sum(axis)
    total = np.where(found, values, 0.0).sum(axis)
    result: FloatArray = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return result


def _spread(per_seed: FloatArray, ddof: int) -> Spread:
    """Mean and std over the seeds in which a value is defined; the std of fewer than ddof + 1 seeds is NaN."""
    values = per_seed[np.isfinite(per_seed)]
    mean = float(values.mean()) if values.size else float("nan")
    std = float(values.std(ddof=ddof)) if values.size > ddof else float("nan")
    return Spread(mean=mean, std=std)


def _quartiles(per_case: FloatArray) -> Quartiles:
    defined = per_case[np.isfinite(per_case)]
    if not defined.size:
        return math.nan, math.nan, math.nan
    low, middle, high = np.percentile(defined, [25, 50, 75])
    return float(low), float(middle), float(high)


def summarise(
    base: Path,
    tables: dict[str, ResultTable],
    *,
    options: AggregateOptions | None = None,
    missing: Sequence[str] = (),
) -> tuple[Summary, dict[str, FloatArray]]:
    """Average tables over seeds.

    Returns:
        The summary, and per metric the values (cases, classes) averaged over seeds, in the order of ``summary.cases``.
    """
    options = options or AggregateOptions()
    dataset, ddof, group_table = options.dataset, options.ddof, options.group_table
    first = next(iter(tables.values()))
    info = first.info
    classes: tuple[str, ...] = numbered_classes(first.num_foreground + 1)
    tail: tuple[str, ...] = ()
    if dataset is not None:
        spec = load_spec(dataset)
        if spec.num_classes != first.num_foreground + 1:
            raise InputError(
                f"{first.path}: has {first.num_foreground} organs, but {spec.name} has {spec.num_classes - 1}"
            )
        classes, tail = spec.classes, spec.tail_classes
    elif info is not None:
        classes, tail = info.classes, info.tail_classes
    cases = tuple(sorted({case for table in tables.values() for case in table.cases}))
    gaps = list(missing)
    for seed, table in tables.items():
        there = set(table.cases)
        if lacking := [case for case in cases if case not in there]:
            gaps.append(f"{seed} has no {', '.join(lacking)}; averages are over the seeds that have a case")
    stacked = {c: np.stack([table.of_cases(cases, c) for table in tables.values()]) for c in first.values}
    tail_index = [classes.index(name) - 1 for name in tail]
    metrics = {}
    for column, values in stacked.items():
        per_case = mean_defined(values, axis=2)
        over_cases = mean_defined(per_case, axis=1)
        tail_mean = mean_defined(mean_defined(values[:, :, tail_index], axis=2), axis=1) if tail_index else None
        metrics[column] = MetricSummary(
            metric=first.metric(column),
            per_class=tuple(_spread(seeds, ddof) for seeds in mean_defined(values, axis=1).T),
            foreground=_spread(over_cases, ddof),
            tail=None if tail_mean is None else _spread(tail_mean, ddof),
            quartiles=_quartiles(mean_defined(per_case, axis=0)),
            class_quartiles=tuple(_quartiles(column) for column in mean_defined(values, axis=0).T),
        )
    summary = Summary(
        base=str(base),
        seeds=tuple(tables),
        cases=cases,
        classes=tuple(classes),
        tail_classes=tuple(tail),
        metrics=metrics,
        ddof=ddof,
        conventions=info.conventions if info else {},
        organs=_organ_totals(list(tables.values())),
        missing=tuple(gaps),
        notes=(*(note for table in tables.values() for note in table.notes), *doubts(tables)),
        groups=_groups(group_table, cases, stacked, ddof) if group_table else (),
        worst_cases=_worst(cases, stacked),
    )
    return summary, {column: mean_defined(values, axis=0) for column, values in stacked.items()}


def _organ_totals(tables: Sequence[ResultTable]) -> dict[str, dict[str, int]]:
    """Organ counts added over seeds; empty unless every table has them."""
    if not all(table.info and table.info.organs for table in tables):
        return {}
    total: dict[str, dict[str, int]] = {}
    for table in tables:
        assert table.info is not None
        for name, counts in table.info.organs.items():
            old = total.setdefault(name, {})
            for status, count in counts.items():
                old[status] = old.get(status, 0) + count
    return total


def _worst(cases: Sequence[str], stacked: dict[str, FloatArray]) -> tuple[tuple[str, str], ...]:
    if "Dice" not in stacked:
        return ()
    dice = mean_defined(mean_defined(stacked["Dice"], axis=2), axis=0)
    order = [i for i in np.argsort(dice, kind="stable") if np.isfinite(dice[i])][:WORST_CASES]
    return tuple((cases[i], f"Dice {100 * dice[i]:.2f} %") for i in order)


def _groups(source: Path, cases: Sequence[str], stacked: dict[str, FloatArray], ddof: int) -> tuple[GroupSummary, ...]:
    """Foreground means for each value of each column of a table of cases (first column: the case)."""
    table = read_table(source)
    ids = [case_id(cells.cells[0]) for cells in table.rows]
    rows = dict(zip(ids, table.rows, strict=True))
    bare = [case_id(case) for case in cases]
    problems = []
    if len(table.columns) < 2:
        problems.append(f"{source}: has the one column '{table.columns[0]}'; the first names cases, the others groups")
    if nameless := [str(row.number) for case, row in zip(ids, table.rows, strict=True) if not case]:
        problems.append(f"{source}: row {', '.join(nameless)}: no case in the first column; name it or remove the row")
    if twice := sorted(case for case, times in Counter(ids).items() if times > 1 and case):
        problems.append(f"{source}: the case {', '.join(twice)} has more than one row; keep one")
    if unknown := sorted(case for case in bare if case not in rows):
        like = sorted(set(ids) & {case.lstrip("0") for case in unknown})
        hint = f"; {', '.join(like[:3])} may have lost zeros in a spreadsheet" if like else ""
        problems.append(
            f"{source}: has no row for {', '.join(listed(unknown))} in its first column, '{table.columns[0]}'{hint}"
        )
    if problems:
        raise InputError(problems)
    groups = []
    for index, column in list(enumerate(table.columns))[1:]:
        members: dict[str, list[int]] = {}
        for position, case in enumerate(bare):
            members.setdefault(rows[case].cells[index] or "(empty)", []).append(position)
        if len(members) > _MOST_GROUPS:
            say(f"{source}: column '{column}' has {len(members)} different values; no groups of it are made")
            continue
        for value, chosen in sorted(members.items()):
            means = {
                name: _spread(mean_defined(mean_defined(array[:, chosen], axis=2), axis=1), ddof)
                for name, array in stacked.items()
            }
            groups.append(GroupSummary(column=column, value=value, cases=len(chosen), foreground=means))
    return tuple(groups)
