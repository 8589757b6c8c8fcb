"""What a report shows, gathered from run folders: scores, learning curves, settings, hashes, where the scans are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from duomod.errors import InputError, nearest_name
from duomod.evaluation.aggregate import Summary, mean_defined, summarise
from duomod.evaluation.method_values import MethodValues
from duomod.evaluation.metrics import Metric
from duomod.evaluation.results import FloatArray, ResultTable, read_organs, read_result
from duomod.evaluation.seeds import find_results
from duomod.evaluation.settings import RESULT, RESULT_TABLE, SEEDS, AggregateOptions
from duomod.workspace import PREDICTED, TRAINED, parse_yaml, read_json, read_json_lines, read_text

CONFIG = "config.yaml"


@dataclass(frozen=True)
class Seed:
    """One evaluated folder, and what is known about its training.

    Attributes:
        name: Folder name (``seed_0``).
        folder: Where it is.
        table: Its scores.
        organs: Per case and organ: Filename, Class, Name, Status, True_ml, Predicted_ml; None for a table made
            elsewhere.
        curves: Logged value -> (steps, values).
        settings: Content of config.yaml, as text; None where there is none.
        training: Content of train_manifest.json, empty where there is none.
        predictions: Folder of the label maps, or None if it is not to be found.
        prediction: Content of prediction.json, empty where there is none.
    """

    name: str
    folder: Path
    table: ResultTable
    organs: pd.DataFrame | None
    curves: dict[str, tuple[list[int], list[float]]]
    settings: str | None
    training: dict[str, Any]
    predictions: Path | None
    prediction: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """The resolved settings, flat: ``train.optim.base_lr`` -> 0.02."""
        settings = parse_yaml(self.settings, self.folder / CONFIG) if self.settings else {}
        if not isinstance(settings, dict):
            raise InputError(f"{self.folder / CONFIG}: not the settings of a run; move the file away")
        return _flat(settings)


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
    """All methods of a report, with the same classes and conventions."""

    methods: tuple[Method, ...]

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

    def metric(self, column: str) -> Metric:
        """Return the description of a metric column."""
        return self.methods[0].metric(column)


def collect(runs: Sequence[Path], dataset: str | None = None) -> Collection:
    """Read everything a report needs.

    Args:
        runs: Folders of methods (each with ``seed_*`` folders that hold ``result.csv``), single evaluated folders, or
            folders of methods.
        dataset: Names the classes and the tail; default: as recorded by the evaluation.

    Raises:
        InputError: lists every folder without results, every table that cannot be read, and methods whose classes or
            conventions differ.
    """
    if not runs:
        raise InputError("give at least one run: the folder of a method, with seed_0, seed_1, ... in it")
    groups: list[tuple[Path, tuple[Path, ...] | None]] = []
    problems: list[str] = []
    for run in runs:
        try:
            groups += _methods_in(Path(run))
        except InputError as error:
            problems += error.problems
    names = _unique_names([base for base, _ in groups])
    methods: list[Method] = []
    for name, (base, folders) in zip(names, groups, strict=True):
        try:
            methods.append(_read_method(name, base, folders, dataset))
        except InputError as error:
            problems += error.problems
    if not problems:
        problems = _incompatible(methods)
    if problems:
        raise InputError(problems)
    return Collection(tuple(methods))


def _methods_in(run: Path) -> list[tuple[Path, tuple[Path, ...] | None]]:
    """Return (folder of a method, its chosen seed folders or None for all) for each method in a folder."""
    if not run.is_dir():
        raise InputError(f"{run}: no such folder; give a run folder of `duomod train` or `duomod pipeline`")
    run = run.resolve()
    if (run / RESULT_TABLE).is_file():
        return [(run.parent if run.match(SEEDS) else run, (run,))]
    if any((seed / RESULT_TABLE).is_file() for seed in run.glob(SEEDS)):
        return [(run, None)]
    inside = sorted(path for path in run.iterdir() if path.is_dir() and any(path.glob(f"{SEEDS}/{RESULT_TABLE}")))
    if not inside:
        raise InputError(
            f"{run}: holds no {RESULT_TABLE}, no {SEEDS}/{RESULT_TABLE} and no folder with these; run `duomod evaluate`"
            " first"
        )
    return [(path, None) for path in inside]


def _unique_names(bases: Sequence[Path]) -> list[str]:
    """Folder names; where two are alike, with as many of their parents as tell them apart."""
    names = [base.name for base in bases]
    for depth in range(2, 6):
        names = [
            "/".join(base.parts[-depth:]) if names.count(name) > 1 else name
            for base, name in zip(bases, names, strict=True)
        ]
    return names


def _read_method(name: str, base: Path, folders: tuple[Path, ...] | None, dataset: str | None) -> Method:
    missing: list[str] = []
    if folders is None:
        tables, missing = find_results(base, SEEDS, RESULT, 1)
    else:
        tables = {folder.name: read_result(folder / RESULT_TABLE) for folder in folders}
    if any("Dice" not in table.values for table in tables.values()):
        raise InputError(f"{base}: the tables have no Dice columns; evaluate with --metrics dice")
    summary, _ = summarise(base, tables, options=AggregateOptions(dataset=dataset), missing=missing)
    seeds = tuple(_read_seed(table) for table in tables.values())
    values = {
        column: np.stack([table.of_cases(summary.cases, column) for table in tables.values()])
        for column in summary.metrics
    }
    return Method(name, seeds, summary, values)


def _read_seed(table: ResultTable) -> Seed:
    folder = table.path.parent
    predictions = folder / "predictions"
    recorded = Path(table.info.predictions) if table.info else None
    found = next((path for path in (predictions, recorded) if path is not None and path.is_dir()), None)
    settings = folder / CONFIG
    return Seed(
        name=folder.name,
        folder=folder,
        table=table,
        organs=read_organs(table.path),
        curves=read_curves(folder / "metrics.jsonl"),
        settings=read_text(settings) if settings.is_file() else None,
        training=_recorded(folder / TRAINED),
        predictions=found,
        prediction=_recorded(found / PREDICTED) if found else {},
    )


def _recorded(path: Path) -> dict[str, Any]:
    """Content of a JSON file that a stage wrote; empty where there is none, as in folders made elsewhere."""
    if not path.is_file():
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a record of duomod; move it away, or run that stage again")
    return content


def read_curves(log: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Read ``metrics.jsonl``: logged name -> (steps, values). A last line cut off by a crash is left out.

    Raises:
        InputError: any other line is broken.
    """
    curves: dict[str, tuple[list[int], list[float]]] = {}
    if not log.is_file():
        return curves
    for record in read_json_lines(log):
        if not isinstance(record.get("step"), int):
            raise InputError(f"{log}: a line has no whole number as step; move the file away to report without it")
        for name, value in record.items():
            if name != "step" and isinstance(value, int | float) and math.isfinite(value):
                steps, values = curves.setdefault(name, ([], []))
                steps.append(int(record["step"]))
                values.append(float(value))
    return curves


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
