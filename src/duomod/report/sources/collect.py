"""What a report shows, gathered from run folders: scores, learning curves, settings, hashes, where the scans are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from duomod.datasets.case_names import shown
from duomod.errors import InputError, nearest_name
from duomod.evaluation.aggregate import Summary, mean_defined, summarise
from duomod.evaluation.method_values import MethodValues
from duomod.evaluation.metrics import Metric
from duomod.evaluation.results import FloatArray, ResultTable, read_result
from duomod.evaluation.seeds import incompatible
from duomod.evaluation.settings import AggregateOptions
from duomod.report.sources.records import Beside, LeftOut, read_beside
from duomod.report.sources.runs import Group, Unfinished, group_runs, method_names, unfinished_of


@dataclass(frozen=True)
class Seed:
    """One evaluated folder, and what is known about its training.

    Attributes:
        name: Folder name (``seed_0``).
        place: The folder as people are told of it: method and run.
        table: Its scores.
        beside: What else was read there.
    """

    name: str
    place: str
    table: ResultTable
    beside: Beside

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved settings, flat: ``train.optim.base_lr`` -> 0.02."""
        return _flat(self.beside.settings)


@dataclass(frozen=True)
class Method:
    """A method over its seeds.

    Attributes:
        name: Unique in the report.
        seeds: In their natural order.
        summary: Mean ± std, tail averages, worst cases.
        values: Metric column -> (seeds, cases, classes without background); NaN where undefined.
    """

    name: str
    seeds: tuple[Seed, ...]
    summary: Summary
    values: dict[str, FloatArray]

    @property
    def cases(self) -> tuple[str, ...]:
        """File names, sorted."""
        return self.summary.cases

    @property
    def per_case(self) -> FloatArray:
        """Dice (cases, classes), averaged over seeds."""
        return mean_defined(self.values["Dice"], axis=0)

    def metric(self, column: str) -> Metric:
        """Return the description of a metric column."""
        return self.seeds[0].table.metric(column)

    def for_comparison(self) -> MethodValues:
        """Return the same values as :func:`duomod.evaluation.paired_comparison.compare_methods` takes them."""
        summary = self.summary
        return MethodValues(
            self.name,
            self.seeds[0].table,
            summary.cases,
            self.values,
            summary.conventions,
            summary.classes,
            summary.tail_classes,
        )


@dataclass(frozen=True)
class Collection:
    """All methods of a report, with the same classes and conventions.

    Attributes:
        methods: In the order given.
        unfinished: Runs that have no result yet.
    """

    methods: tuple[Method, ...]
    unfinished: tuple[Unfinished, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the organs, without background."""
        return self.methods[0].summary.classes[1:]

    @property
    def tail(self) -> tuple[str, ...]:
        """Names of the tail classes; empty if none are named."""
        return self.methods[0].summary.tail_classes

    @property
    def columns(self) -> tuple[str, ...]:
        """Metric columns that every method has, Dice first."""
        common = [c for c in self.methods[0].values if all(c in method.values for method in self.methods)]
        return tuple(sorted(common, key=lambda column: column != "Dice"))

    @property
    def cases(self) -> tuple[str, ...]:
        """All cases of all methods, sorted."""
        return tuple(sorted({case for method in self.methods for case in method.cases}))

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """What lies beside the tables and could not be read."""
        return tuple(one for method in self.methods for seed in method.seeds for one in seed.beside.left_out)

    def metric(self, column: str) -> Metric:
        """Return the description of a metric column."""
        return self.methods[0].metric(column)


def collect(runs: Sequence[Path], dataset: str | None = None, *, parents: bool = True) -> Collection:
    """Read everything a report needs.

    Args:
        runs: Folders of methods (each with ``seed_*`` folders that hold ``result.csv``), single evaluated folders, or
            folders of methods. Seed folders of one parent are one method.
        dataset: Names the classes and the tail; default: as recorded by the evaluation.
        parents: Methods of the same name are told apart by the folders that they are in; else by numbers.

    Raises:
        InputError: lists every folder without runs, every table that cannot be read, and methods whose classes or
            conventions differ; or no run has a result yet.
    """
    groups = group_runs(runs)
    names = method_names(groups, parents)
    methods: list[Method] = []
    problems: list[str] = []
    for name, group in zip(names, groups, strict=True):
        try:
            methods += [_read_method(name, group, dataset)] if group.finished else []
        except InputError as error:
            problems += error.problems
    problems = problems or _incompatible(methods)
    if problems:
        raise InputError(problems)
    return Collection(tuple(methods), tuple(unfinished_of(names, groups)))


def _read_method(name: str, group: Group, dataset: str | None) -> Method:
    tables: dict[str, ResultTable] = {}
    problems: list[str] = []
    for path in group.finished:
        try:
            tables[shown(path.parent.name)] = read_result(path)
        except InputError as error:
            problems += error.problems
    problems = problems or incompatible(tables)
    if problems:
        raise InputError(problems)
    if any("Dice" not in table.values for table in tables.values()):
        raise InputError(f"{group.base}: the tables have no Dice columns; evaluate with --metrics dice")
    missing = [f"{shown(folder.name)} has no result yet" for folder in group.unfinished]
    summary, _ = summarise(group.base, tables, options=AggregateOptions(dataset=dataset), missing=missing)
    seeds = tuple(
        Seed(seed, place, table, read_beside(table, place))
        for seed, table in tables.items()
        if (place := name if table.path.parent == group.base else f"{name}, {seed}")
    )
    values = {
        column: np.stack([table.of_cases(summary.cases, column) for table in tables.values()])
        for column in summary.metrics
    }
    return Method(name, seeds, summary, values)


def _incompatible(methods: Sequence[Method]) -> list[str]:
    first = methods[0].summary
    problems = []
    for method in methods[1:]:
        other = method.summary
        if other.classes != first.classes:
            problems.append(
                f"{other.base}: other classes than {first.base}; one report holds one data set (or give --dataset)"
            )
        elif other.tail_classes != first.tail_classes:
            problems.append(f"{other.base}: other tail classes than {first.base}; name them with --dataset")
        if first.conventions and other.conventions and other.conventions != first.conventions:
            names = [key for key, value in first.conventions.items() if other.conventions.get(key) != value]
            problems.append(f"{other.base}: other conventions than {first.base} ({', '.join(names)}); evaluate again")
    return problems


def baseline_of(collection: Collection, wanted: str | None) -> str:
    """Return the baseline's name: the one asked for, else ``supervised`` where there is one, else the first.

    Raises:
        InputError: no method of that name.
    """
    names = [method.name for method in collection.methods]
    if wanted is None:
        return "supervised" if "supervised" in names else names[0]
    if wanted not in names:
        raise InputError(
            f"--baseline '{wanted}': no such method.{nearest_name(wanted, names)} There are: {', '.join(names)}."
        )
    return wanted


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
