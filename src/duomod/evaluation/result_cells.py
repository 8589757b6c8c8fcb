"""From a table's text to cases and numbers: what is a metric's column, what is a case's row, which values can be."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from duomod.datasets.case_names import case_id, is_scan
from duomod.datasets.labels import MOST_CLASSES
from duomod.errors import InputError
from duomod.evaluation.metrics import Metric
from duomod.evaluation.table_file import Numbers, Row, TextTable, listed

FloatArray = npt.NDArray[np.float64]

_COLUMN = re.compile(r"(?P<metric>.*?[^\s_])[\s_]*class[\s_]*0*(?P<label>[0-9]+)", re.IGNORECASE)
#: What tables made elsewhere call the rows below their cases, and the words that go with it.
_AVERAGES = frozenset(
    "mean means average averages avg std sd stdev stddev standard median min max minimum maximum total sum all".split()
)
_BESIDE = frozenset("dev deviation overall over of the and n cases case values value error class classes".split())
#: An overlap may be beyond 1 by rounding of single precision.
_ROUNDING = 1e-6


def file_names(table: TextTable) -> tuple[str, ...]:
    """The column of file names.

    Raises:
        InputError: there is none.
    """
    for name in table.columns:
        if re.sub(r"[\s_]", "", name).casefold() == "filename":
            return table.column(name)
    shown = ", ".join(map(repr, table.columns[:8])) + (", ..." if len(table.columns) > 8 else "")
    raise InputError(
        f"{table.path}: has no column 'Filename' (its columns: {shown}); is it the result of `duomod evaluate`? Give"
        " the column of the file names this name"
    )


def metric_heads(table: TextTable, known: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The columns of each metric in the order of the classes 1, 2, ...; and what is wrong with them.

    Args:
        table: Its heads may differ from ``Dice_Class1`` in case and blanks.
        known: Metric column prefixes as they are spelt here.
    """
    spelt = {name.casefold(): name for name in known}
    found: dict[str, dict[int, str]] = {}
    problems = []
    for head in table.columns:
        match = _COLUMN.fullmatch(head)
        if match is None:
            continue
        if len(match["label"]) > 3 or not 0 < int(match["label"]) < MOST_CLASSES:
            problems.append(
                f"{table.path}: column '{head[:80]}': classes go from 1 to {MOST_CLASSES - 1} (0 is the background);"
                " remove or rename it"
            )
            continue
        metric, label = match["metric"], int(match["label"])
        columns = found.setdefault(spelt.get(metric.casefold(), metric), {})
        if label in columns:
            problems.append(f"{table.path}: the columns '{columns[label]}' and '{head}' are the same; keep one of them")
        columns[label] = head
    if not found and not problems:
        problems.append(f"{table.path}: has no column such as Dice_Class1")
    most = max((max(columns) for columns in found.values()), default=0)
    lacking = [
        f"{metric}_Class{i}" for metric, columns in found.items() for i in range(1, most + 1) if i not in columns
    ]
    if lacking and not problems:
        problems.append(
            f"{table.path}: the class columns of each metric must run from 1 to the same number without a gap; it lacks"
            f" {', '.join(lacking[:8])}{', ...' if len(lacking) > 8 else ''}"
        )
    return {metric: [columns[label] for label in sorted(columns)] for metric, columns in found.items()}, problems


def case_rows(table: TextTable, names: Sequence[str]) -> tuple[list[tuple[str, Row]], list[str], list[str]]:
    """The rows that are cases, what was left out, and what is wrong: nameless rows and cases that are there twice."""
    found: dict[str, tuple[str, Row]] = {}
    averages, nameless, twice = [], [], []
    for written, row in zip(names, table.rows, strict=True):
        # Macs write accents as letters of their own; the same name must be the same case.
        name = unicodedata.normalize("NFC", written)
        if not name:
            nameless.append(f"{table.path}: row {row.number} names no case; name it or remove it")
        elif _is_average(name):
            averages.append(f"'{name}' (row {row.number})")
        elif case_id(name) in found:
            first, there = found[case_id(name)]
            twice.append(f"{name if first == name else f'{first} and {name}'} (rows {there.number} and {row.number})")
        else:
            found[case_id(name)] = (name, row)
    problems = listed(nameless)
    if twice:
        problems.append(f"{table.path}: these cases appear twice: {'; '.join(listed(twice))}; keep one row of each")
    if not found and not problems:
        problems.append(f"{table.path}: has no case")
    notes = [f"{table.path}: {', '.join(averages)} left out: no case but an average"] if averages else []
    return list(found.values()), notes, problems


def _is_average(name: str) -> bool:
    """Whether a row's name says that it is a mean, a deviation or a total of other rows, not a case."""
    if is_scan(Path(name)):
        return False
    words = re.findall(r"[^\W\d_]+", name.casefold())
    numbered = re.search(r"[0-9]", re.sub(r"\(.*\)|n\s*=\s*[0-9]+|over [0-9]+", "", name.casefold()))
    return bool(words) and not numbered and words[0] in _AVERAGES and {*words[1:]} <= _AVERAGES | _BESIDE


def values_of(
    table: TextTable, cases: Sequence[tuple[str, Row]], heads: dict[str, list[str]], metric_of: Callable[[str], Metric]
) -> tuple[dict[str, FloatArray], list[str], list[str]]:
    """Metric -> (cases, classes), NaN where a cell is empty or a distance infinite; notes; and what is wrong.

    Wrong are texts, overlaps outside 0 to 1 and negative distances: an average over them would be printed as a result.
    """
    numbers, problems, notes = Numbers(), [], []
    place = {head: index for index, head in enumerate(table.columns)}
    values = {}
    for metric, columns in heads.items():
        array = np.empty((len(cases), len(columns)))
        for at, head in enumerate(columns):
            for position, (case, row) in enumerate(cases):
                try:
                    array[position, at] = numbers.read(row.cells[place[head]], row.number)
                except ValueError as error:
                    array[position, at] = np.nan
                    problems.append(f"{table.path}: row {row.number} ({case}), column {head}: {error}")
        wrong = _impossible(array, metric_of(metric))
        problems += _told(table, cases, columns, array, wrong, metric_of(metric))
        endless = np.argwhere(np.isinf(array) & ~wrong)
        if len(endless):
            where = ", ".join(f"{cases[row][0]} {columns[at]}" for row, at in endless[:3].tolist())
            more = f" and {len(endless) - 3} more" if len(endless) > 3 else ""
            notes.append(f"{table.path}: infinite values left out of all means: {where}{more}")
        values[metric] = np.where(np.isfinite(array), array, np.nan)
    if mixed := numbers.mixed():
        problems.append(f"{table.path}: {mixed}; write all numbers alike")
    return values, notes, listed(problems)


def _impossible(array: FloatArray, metric: Metric) -> npt.NDArray[np.bool_]:
    if metric.kind == "overlap":
        return (array < -_ROUNDING) | (array > 1 + _ROUNDING)
    # A signed difference, and a column that is not known, may be anything.
    return (
        array < 0 if metric.kind == "distance" and metric.higher_is_better is not None else np.zeros_like(array, bool)
    )


def _told(
    table: TextTable,
    cases: Sequence[tuple[str, Row]],
    columns: Sequence[str],
    array: FloatArray,
    wrong: npt.NDArray[np.bool_],
    metric: Metric,
) -> list[str]:
    """A sentence for each impossible value; one for all where they look like per cent."""
    if not wrong.any():
        return []
    defined = array[np.isfinite(array)]
    beyond = np.count_nonzero(defined > 1 + _ROUNDING)
    if metric.kind == "overlap" and 2 * beyond > len(defined) and defined.min() >= 0 and defined.max() <= 100:
        row, at = np.argwhere(wrong)[0].tolist()
        return [
            f"{table.path}: {metric.column} looks like per cent ({beyond} of {len(defined)} values are above 1, such as"
            f" {array[row, at]:g} in row {cases[row][1].number} ({cases[row][0]}), column {columns[at]}); divide its"
            " columns by 100"
        ]
    span = "from 0 to 1" if metric.kind == "overlap" else "0 or more"
    return [
        f"{table.path}: row {cases[row][1].number} ({cases[row][0]}), column {columns[at]}: {array[row, at]:g} is no"
        f" {metric.column}, which is {span}; correct it"
        for row, at in np.argwhere(wrong).tolist()
    ]
