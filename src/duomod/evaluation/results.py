"""The file format between evaluation, aggregation, comparison and report: a table of cases, a JSON file beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from duomod.errors import InputError
from duomod.evaluation.metrics import ASD_VARIANTS, METRICS, Metric
from duomod.settings import checked
from duomod.workspace import atomic_path, read_json, write_text

FloatArray = npt.NDArray[np.float64]

_COLUMN = re.compile(r"^(?P<metric>.+)_Class(?P<label>\d+)$")


class ResultInfo(BaseModel):
    """What the numbers of a result table mean and where they come from; the JSON file beside the table.

    ``conventions`` holds whatever changes numbers (empty-class policy, ASD variant, protocol, tolerances): results may
    be averaged or compared only when theirs are equal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    duomod: str
    libraries: dict[str, str] = Field(default_factory=dict)
    finished: str
    predictions: str
    truth: str
    dataset: str = ""
    classes: tuple[str, ...]
    tail_classes: tuple[str, ...] = ()
    metrics: tuple[dict[str, Any], ...]
    conventions: dict[str, Any]
    missing_predictions: tuple[str, ...] = ()
    organs: dict[str, dict[str, int]] = Field(
        default_factory=dict, description="class name -> number of cases in each status; 'total' over all classes"
    )
    case_keys: dict[str, str] = Field(default_factory=dict, description="file name -> identity of what was scored")
    table_sha256: str = ""


@dataclass(frozen=True)
class ResultTable:
    """Metrics of cases, as read from a result file.

    Attributes:
        path: The table that was read.
        cases: File names in the table's order.
        values: Metric column prefix -> array (cases, classes without background); NaN where excluded.
        info: The JSON file beside the table, or None for a table made elsewhere.
    """

    path: Path
    cases: tuple[str, ...]
    values: dict[str, FloatArray]
    info: ResultInfo | None = field(default=None)

    @property
    def num_foreground(self) -> int:
        """Number of classes without the background."""
        return int(next(iter(self.values.values())).shape[1])

    def of_cases(self, cases: Sequence[str], column: str) -> FloatArray:
        """Return a metric of these cases, (cases, classes); NaN where the table lacks a case."""
        row = {case: index for index, case in enumerate(self.cases)}
        found = np.full((len(cases), self.num_foreground), np.nan)
        for position, case in enumerate(cases):
            if case in row:
                found[position] = self.values[column][row[case]]
        return found

    def metric(self, column: str) -> Metric:
        """Return the description of a metric column, by its prefix."""
        if self.info is not None:
            for recorded in self.info.metrics:
                if recorded["column"] == column:
                    return Metric(**recorded)
        return describe_column(column)


def describe_column(column: str) -> Metric:
    """Return the metric a column prefix stands for; an unknown one is shown as it is."""
    for metric in (*METRICS.values(), *ASD_VARIANTS.values()):
        if metric.column == column:
            return metric
    return Metric(column, column, column, "distance", None, 1.0, 3, "a column of a table made elsewhere")


def sidecar(table: Path) -> Path:
    """Return the path of the JSON file that belongs to a table."""
    return table.with_suffix(".json")


def metric_columns(column: str, num_foreground: int) -> list[str]:
    """Return the table columns of one metric: ``<column>_Class1`` ..."""
    return [f"{column}_Class{label}" for label in range(1, num_foreground + 1)]


def write_frame(frame: pd.DataFrame, target: Path) -> None:
    """Write a table atomically, as CSV or, when the name ends with .xlsx, as a workbook. Undefined values are empty."""
    with atomic_path(target) as temporary:
        if target.suffix.lower() == ".xlsx":
            frame.to_excel(temporary, index=False, engine="openpyxl")
        else:
            frame.to_csv(temporary, index=False, lineterminator="\n")


def read_frame(source: Path) -> pd.DataFrame:
    """Read a CSV or XLSX table.

    Raises:
        InputError: missing, empty or not a table.
    """
    try:
        if source.suffix.lower() == ".xlsx":
            return pd.read_excel(source, engine="openpyxl")
        return pd.read_csv(source)
    except FileNotFoundError:
        raise InputError(f"{source}: file not found") from None
    except Exception as error:  # pandas, openpyxl and zipfile each have their own ways to refuse a broken file
        raise InputError(f"{source}: cannot be read as a table ({error})") from None


def build_frame(cases: Sequence[str], values: Mapping[str, FloatArray]) -> pd.DataFrame:
    """Return the table ``Filename, <metric>_Class1, ...`` for arrays (cases, classes)."""
    columns: dict[str, Any] = {"Filename": list(cases)}
    for metric, array in values.items():
        columns.update(zip(metric_columns(metric, array.shape[1]), array.T, strict=True))
    return pd.DataFrame(columns)


def write_info(table: Path, info: ResultInfo) -> None:
    """Write the JSON file beside a table; it is written last, so that its presence means the table is complete."""
    write_text(sidecar(table), info.model_dump_json(indent=1) + "\n")


def read_info(table: Path) -> ResultInfo | None:
    """Return what is recorded beside a table, or None when nothing is.

    Raises:
        InputError: the JSON file is there but is not a result description.
    """
    source = sidecar(table)
    if not source.is_file():
        return None
    hint = "evaluate again, or move the file away to read the table without it"
    return checked(ResultInfo, read_json(source), source=f"{source}: not the description of a result table ({hint}): ")


def read_result(source: Path) -> ResultTable:
    """Read a result table (CSV or XLSX) and what is recorded beside it. Infinite values count as undefined.

    Raises:
        InputError: the file is missing, has no ``Filename`` or no ``<metric>_Class<n>`` column, a gap in the class
            numbers, a value that is not a number, or a case that appears twice.
    """
    frame = read_frame(source)
    if "Filename" not in frame.columns:
        raise InputError(f"{source}: has no column 'Filename'; is it the result of `duomod evaluate`?")
    labels: dict[str, list[int]] = {}
    for column in map(str, frame.columns):
        match = _COLUMN.match(column)
        if match:
            labels.setdefault(match["metric"], []).append(int(match["label"]))
    problems = []
    if not labels:
        problems.append(f"{source}: has no column such as Dice_Class1")
    if len(frame) == 0:
        problems.append(f"{source}: has no case")
    counts = {max(numbers) for numbers in labels.values()}
    if any(sorted(numbers) != list(range(1, max(counts) + 1)) for numbers in labels.values()):
        problems.append(f"{source}: the class columns of each metric must run from 1 to the same number without a gap")
    cases = [str(name) for name in frame["Filename"]]
    twice = sorted({name for name in cases if cases.count(name) > 1})
    if twice:
        problems.append(f"{source}: these cases appear twice: {', '.join(twice)}")
    if problems:
        raise InputError(problems)
    values = {}
    for metric, numbers in labels.items():
        try:
            array = frame[metric_columns(metric, len(numbers))].to_numpy(dtype=np.float64)
        except (ValueError, TypeError) as error:
            raise InputError(f"{source}: a value of {metric} is not a number ({error})") from None
        values[metric] = np.where(np.isfinite(array), array, np.nan)
    info = read_info(source)
    if info is not None and len(info.classes) != max(counts) + 1:
        raise InputError(
            f"{source}: has {max(counts)} organ columns, but {sidecar(source)} names {len(info.classes) - 1}; they do"
            " not belong together. Evaluate again."
        )
    return ResultTable(source, tuple(cases), values, info)


def metric_record(metric: Metric) -> dict[str, Any]:
    """Return a metric's description as plain data."""
    return asdict(metric)
