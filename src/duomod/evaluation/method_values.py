"""One method's values by seed, case and class, read from its aggregated table; and which methods can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from duomod.console import say
from duomod.datasets.spec import load_spec, numbered_classes
from duomod.errors import InputError, nearest_name
from duomod.evaluation.aggregate import mean_defined
from duomod.evaluation.results import FloatArray, ResultTable, check_unchanged, read_result
from duomod.evaluation.settings import SEEDS
from duomod.evaluation.summary_files import Sources, method_name, sources_path
from duomod.settings import checked
from duomod.workspace import read_json

FOREGROUND, TAIL = "foreground", "tail"


@dataclass(frozen=True)
class MethodValues:
    """One method's per-case values.

    Attributes:
        name: The method.
        table: The aggregated table, for messages and metric descriptions.
        cases: File names, sorted.
        seeds: Metric column -> (seeds, cases, classes); one "seed" when only seed averages are known.
        conventions: How the values were computed; empty when not recorded.
        classes: Class names, background first.
        tail_classes: Names of the tail classes.
        notes: Sentences about seeds, cases and rows that are not in these values.
    """

    name: str
    table: ResultTable
    cases: tuple[str, ...]
    seeds: dict[str, FloatArray]
    conventions: Mapping[str, Any]
    classes: tuple[str, ...]
    tail_classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_method(aggregated: Path, dataset: str | None = None) -> MethodValues:
    """Read an aggregated table and, where its ``_sources.json`` still leads to them, the tables of its seeds.

    Raises:
        InputError: the table, or a table it was made from, cannot be read.
    """
    table = read_result(aggregated)
    cases = tuple(sorted(table.cases))
    source = sources_path(aggregated)
    made_by = Sources(method=method_name(aggregated))
    if source.is_file():
        made_by = checked(Sources, read_json(source), source=f"{source}: not of an aggregated table; aggregate again: ")
        check_unchanged(aggregated, table.sha256, made_by.table_sha256, source)
    name = made_by.method
    paths = {seed: aggregated.parent / path for seed, path in made_by.seeds.items()}
    gone = [str(path) for path in paths.values() if not path.is_file()]
    if not paths or gone:
        why = f"{', '.join(gone)} not found" if gone else f"no {source.name} beside it"
        say(
            f"{aggregated}: single seeds are unknown ({why}); the intervals of {name} leave out the chance of training."
        )
        seeds = {column: table.of_cases(cases, column)[None] for column in table.values}
    else:
        tables = [read_result(path) for path in paths.values()]
        was = [made_by.sha256.get(seed, "") for seed in paths]
        changed = [
            str(t.path)
            for t, recorded in zip(tables, was, strict=True)
            if set(t.values) < set(table.values) or not set(t.cases) <= set(cases) or recorded not in ("", t.sha256)
        ]
        if changed:
            raise InputError([f"{path}: has changed since {aggregated} was made; aggregate again" for path in changed])
        seeds = {column: np.stack([t.of_cases(cases, column) for t in tables]) for column in table.values}
    classes = made_by.classes or numbered_classes(table.num_foreground + 1)
    tail = made_by.tail_classes
    if dataset is not None:
        spec = load_spec(dataset)
        classes, tail = spec.classes, spec.tail_classes
    if len(classes) != table.num_foreground + 1:
        raise InputError(f"{aggregated}: has {table.num_foreground} organs, but {len(classes) - 1} are named")
    notes = (*made_by.missing, *_not_in_it(aggregated, made_by), *(() if source.is_file() else table.notes))
    return MethodValues(name, table, cases, seeds, made_by.conventions, classes, tail, notes)


def _not_in_it(aggregated: Path, made_by: Sources) -> list[str]:
    """Sentences about results beside those that an aggregated table was made of."""
    first = next(iter(made_by.seeds.values()), "")
    base, result = (aggregated.parent / first).parent.parent, Path(first).name
    later = sorted(path for path in base.glob(f"{SEEDS}/{result}") if path.parent.name not in made_by.seeds)
    return [f"{path} is not in {aggregated.name}; aggregate again to take it in" for path in later] if first else []


def check_comparable(methods: Sequence[MethodValues], baseline: str) -> None:
    names = [method.name for method in methods]
    problems = [
        f"two tables are of a method called '{name}'; rename one file" for name in {*names} if names.count(name) > 1
    ]
    if len(methods) < 2:
        problems.append("a comparison needs at least two aggregated tables")
    if baseline not in names:
        problems.append(
            f"the baseline '{baseline}' is none of them.{nearest_name(baseline, names)} Given: {', '.join(names)}."
        )
    first = methods[0]
    for other in methods[1:]:
        lacking, extra = set(first.cases) - set(other.cases), set(other.cases) - set(first.cases)
        if lacking or extra:
            parts = [f"without {', '.join(sorted(lacking))}"] if lacking else []
            parts += [f"with {', '.join(sorted(extra))} besides"] if extra else []
            problems.append(
                f"{other.table.path}: other cases than {first.table.path} ({'; '.join(parts)}); paired tests need the"
                " same cases in both: evaluate both on the same list"
            )
        if other.classes != first.classes:
            problems.append(f"{other.table.path}: other classes than {first.table.path}")
        if set(other.seeds) != set(first.seeds):
            problems.append(f"{other.table.path}: has {', '.join(other.seeds)}, not {', '.join(first.seeds)}")
        if first.conventions and other.conventions and first.conventions != other.conventions:
            differing = [k for k, v in first.conventions.items() if other.conventions.get(k) != v]
            problems.append(f"{other.table.path}: other conventions than {first.table.path} ({', '.join(differing)})")
    if problems:
        raise InputError(problems)


def scoped_values(method: MethodValues, column: str, scope: str) -> FloatArray:
    """Return (seeds, cases): a class's values, or the mean over the foreground's or the tail's defined classes."""
    values = method.seeds[column]
    if scope == FOREGROUND:
        return mean_defined(values, axis=2)
    if scope == TAIL:
        return mean_defined(values[:, :, [method.classes.index(name) - 1 for name in method.tail_classes]], axis=2)
    result: FloatArray = values[:, :, method.classes.index(scope) - 1]
    return result
