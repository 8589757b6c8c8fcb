"""The report's tables as cells: what is shown, what it sorts by, and whether it is the best or second best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from duomod.evaluation.aggregate import Spread
from duomod.evaluation.metrics import Metric
from duomod.evaluation.tables import Row, cell_text, method_table
from duomod.report.sources.collect import Collection, Method
from duomod.report.sources.records import LeftOut

Mark = Literal["", "best", "second"]


@dataclass(frozen=True)
class Cell:
    """One cell; ``sort`` is a number, a text, or None for an undefined value, which sorts last."""

    text: str
    sort: float | str | None
    mark: Mark = ""


@dataclass(frozen=True)
class Table:
    """A table to sort: the first cell of a row is its name."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def _spread_cell(spread: Spread | None, metric: Metric, mark: Mark) -> Cell:
    sort = None if spread is None or math.isnan(spread.mean) else spread.mean * metric.scale
    return Cell(cell_text(spread, metric), sort, mark)


def _marks(row: Row) -> list[Mark]:
    best, second = row.places()
    return ["best" if i == best else "second" if i == second else "" for i in range(len(row.spreads))]


def summary_cells(collection: Collection) -> Table:
    """One row per method: mean ± std of each metric over foreground and tail, missed organs, training."""
    head = ["Method", "Seeds"]
    columns: list[list[Cell]] = []
    for column in collection.columns:
        metric = collection.metric(column)
        parts = [method.summary.metrics[column] for method in collection.methods]
        scopes: list[tuple[str, tuple[Spread | None, ...]]] = [("", tuple(p.foreground for p in parts))]
        if collection.tail:
            scopes.append(("tail ", tuple(p.tail for p in parts)))
        for name, spreads in scopes:
            head.append(f"{name}{metric.title}")
            marks = _marks(Row(name, metric, spreads))
            columns.append([_spread_cell(s, metric, m) for s, m in zip(spreads, marks, strict=True)])
    head += ["missed organs", "validation Dice (%)", "training"]
    rows = []
    for index, method in enumerate(collection.methods):
        cells = [Cell(method.name, method.name), Cell(str(len(method.seeds)), len(method.seeds))]
        cells += [column[index] for column in columns]
        rows.append((*cells, _missed(method), _validation(method), _training(method)))
    return Table(tuple(head), tuple(rows))


def _counts(method: Method, name: str) -> tuple[int, int] | None:
    """How many organs of a class were missed, of how many that are in the truth; None where that is not recorded."""
    counts = method.summary.organs.get(name, {})
    if not {"missed", "detected", "misplaced"} <= counts.keys():
        return None
    return counts["missed"], counts["missed"] + counts["detected"] + counts["misplaced"]


def _missed(method: Method) -> Cell:
    counts = _counts(method, "total")
    if counts is None:
        return Cell("not recorded", None)
    missed, present = counts
    share = 100 * missed / present if present else 0.0
    return Cell(f"{missed} of {present} ({share:.1f} %)", share)


def _validation(method: Method) -> Cell:
    values = [seed.beside.training.best_validation_dice for seed in method.seeds]
    known = [100 * value for value in values if value is not None]
    return Cell(f"{sum(known) / len(known):.1f}", sum(known) / len(known)) if known else Cell("n/a", None)


def _training(method: Method) -> Cell:
    """Steps, and the median time of a seed's training."""
    trainings = [seed.beside.training for seed in method.seeds]
    times = [training.seconds for training in trainings if training.seconds is not None]
    if not times:
        return Cell("n/a", None)
    seconds = median(times)
    steps = sorted({training.steps for training in trainings if training.steps is not None})
    shown = f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.1f} min"
    return Cell(f"{', '.join(map(str, steps)) or 'n/a'} steps, {shown}", seconds)


def class_cells(collection: Collection) -> list[tuple[str, Table]]:
    """One table per metric: classes and averages as rows, methods as columns."""
    names = tuple(method.name for method in collection.methods)
    table = method_table([method.summary for method in collection.methods])
    found = []
    for title, section in table.sections:
        rows = []
        for row in section:
            cells = [_spread_cell(s, row.metric, m) for s, m in zip(row.spreads, _marks(row), strict=True)]
            rows.append((Cell(row.name, row.name), *cells))
        found.append((title, Table(("Class", *names), tuple(rows))))
    return found


def missed_cells(collection: Collection) -> Table | None:
    """Classes as rows, methods as columns: how often an organ that is in the truth was missed, over all seeds."""
    if all(_counts(method, "total") is None for method in collection.methods):
        return None
    rows = []
    for name in (*collection.classes, "total"):
        cells = [Cell("all organs" if name == "total" else name, name)]
        cells += [_missed_of(method, name) for method in collection.methods]
        rows.append(tuple(cells))
    return Table(("Class", *(method.name for method in collection.methods)), tuple(rows))


def _missed_of(method: Method, name: str) -> Cell:
    counts = _counts(method, name)
    if counts is None:
        return Cell("not recorded", None)
    missed, present = counts
    if not present:
        return Cell("absent", None)
    return Cell(f"{missed} of {present}" if missed else "–", missed / present)


def unfinished_cells(collection: Collection) -> Table:
    """Runs without a result, and how far they have come."""
    rows = tuple((Cell(run.run, run.run), Cell(run.state, run.state)) for run in collection.unfinished)
    return Table(("Run", "How far"), rows)


def left_out_cells(left_out: Sequence[LeftOut]) -> Table:
    """What could not be read, where, and why."""
    rows = tuple(tuple(Cell(text, text) for text in (one.of, one.what, one.reason)) for one in left_out)
    return Table(("Run or case", "What", "Why"), rows)


def setting_cells(collection: Collection) -> Table:
    """Settings that differ between methods (of each one's first seed), one row each; lists and texts as written."""
    configs = [method.seeds[0].config for method in collection.methods]
    names = sorted({name for config in configs for name in config if not _incidental(name)})
    rows = []
    for name in names:
        values = [_setting(config.get(name)) if config else "not recorded" for config in configs]
        if len(set(values)) > 1:
            rows.append((Cell(name, name), *(Cell(value, value) for value in values)))
    return Table(("Setting", *(method.name for method in collection.methods)), tuple(rows))


def _incidental(name: str) -> bool:
    return name in ("seed", "model", "data_path") or name.startswith("machine.")


def _setting(value: Any) -> str:
    return "" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def hash_cells(collection: Collection) -> Table:
    """What each seed's numbers were made from: checkpoint, scores, versions, device."""
    rows = []
    for method in collection.methods:
        for seed in method.seeds:
            info, training = seed.table.info, seed.beside.training
            model = seed.beside.prediction.settings.model_sha256
            scores = info.table_sha256 if info else ""
            texts: Sequence[str] = (
                method.name,
                seed.name,
                model or "not recorded",
                scores or "not recorded",
                training.duomod or (info.duomod if info else "") or "not recorded",
                training.torch or "not recorded",
                training.device or "not recorded",
            )
            rows.append(tuple(Cell(text, text) for text in texts))
    head = ("Method", "Seed", "Checkpoint SHA-256", "Scores SHA-256", "duomod", "torch", "Device")
    return Table(head, tuple(rows))
