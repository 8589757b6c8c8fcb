"""The file format between evaluation, aggregation, comparison and report: a table of cases, a JSON file beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from duomod.errors import InputError
from duomod.evaluation.metrics import ASD_VARIANTS, METRICS, Metric
from duomod.evaluation.mix_ups import MixUp
from duomod.evaluation.policy import OrganStatus
from duomod.evaluation.result_cells import case_rows, file_names, metric_heads, values_of
from duomod.evaluation.table_file import listed, read_table
from duomod.settings import checked
from duomod.workspace import atomic_path, read_json, write_text

FloatArray = npt.NDArray[np.float64]

#: Of the table of organs beside a table of results.
ORGAN_COLUMNS = ["Filename", "Class", "Name", "Status", "True_ml", "Predicted_ml"]


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
    metrics: tuple[Metric, ...]
    conventions: dict[str, Any]
    missing_predictions: tuple[str, ...] = ()
    unlisted_predictions: tuple[str, ...] = Field(
        (), description="predictions that the prediction.json beside them does not list: not of the model that it names"
    )
    organs: dict[str, dict[str, int]] = Field(
        default_factory=dict, description="class name -> number of cases in each status; 'total' over all classes"
    )
    case_keys: dict[str, str] = Field(default_factory=dict, description="file name -> identity of what was scored")
    reordered: dict[str, str] = Field(
        default_factory=dict, description="file name -> how the truth was stored in another order than the prediction"
    )
    mix_ups: tuple[MixUp, ...] = Field((), description="labels or sides that seem exchanged, with the Dice if they are")
    table_sha256: str = ""
    organs_sha256: str = ""


@dataclass(frozen=True)
class ResultTable:
    """Metrics of cases, as read from a result file.

    Attributes:
        path: The table that was read.
        cases: File names in the table's order.
        values: Metric column prefix -> array (cases, classes without background); NaN where excluded.
        info: The JSON file beside the table, or None for a table made elsewhere.
        notes: Sentences about what was left out: rows of averages, infinite distances.
        sha256: Of the bytes that were read.
    """

    path: Path
    cases: tuple[str, ...]
    values: dict[str, FloatArray]
    info: ResultInfo | None = None
    notes: tuple[str, ...] = ()
    sha256: str = ""

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
                if recorded.column == column:
                    return recorded
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


def organs_path(table: Path) -> Path:
    """Return the path of the table of organs that belongs to a table."""
    return table.with_name(f"{table.stem}_organs.csv")


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
    """Read a result table and what is recorded beside it: ours, or one made elsewhere (see :mod:`.table_file`).

    Rows called mean, std, total and the like are left out, infinite distances count as undefined; ``notes`` says so.

    Raises:
        InputError: lists what cannot be used: no ``Filename`` or no ``<metric>_Class<n>`` column, a gap in the class
            numbers, texts, overlaps outside 0 to 1, negative distances, a case twice; or the table is not the one that
            the file beside it describes.
    """
    table = read_table(source)
    info = read_info(source)
    if info is not None:
        check_unchanged(source, table.sha256, info.table_sha256, sidecar(source))
    described = ResultTable(source, (), {}, info)
    known = info.metrics if info is not None else (*METRICS.values(), *ASD_VARIANTS.values())
    heads, problems = metric_heads(table, [metric.column for metric in known])
    cases, notes, more = case_rows(table, file_names(table))
    problems += more
    if not problems:
        values, endless, problems = values_of(table, cases, heads, described.metric)
    if problems:
        raise InputError(problems)
    names = tuple(name for name, _ in cases)
    found = ResultTable(source, names, values, info, (*table.notes, *notes, *endless), table.sha256)
    if info is not None and len(info.classes) != found.num_foreground + 1:
        raise InputError(
            f"{source}: has {found.num_foreground} organ columns, but {sidecar(source)} names {len(info.classes) - 1};"
            " they do not belong together. Evaluate again."
        )
    return found


def read_organs(table: Path) -> pd.DataFrame | None:
    """Read what became of every organ of a result table's cases.

    Returns:
        Rows of Filename, Class, Name, Status (see :class:`.policy.OrganStatus`), True_ml and Predicted_ml; None where
        there is no such table, as beside tables made elsewhere.

    Raises:
        InputError: lists what cannot be used: other columns, or cells that are no class, status or volume.
    """
    source = organs_path(table)
    if not source.is_file():
        return None
    text = read_table(source)
    if text.columns != tuple(ORGAN_COLUMNS):
        raise InputError(f"{source}: its columns are not {', '.join(ORGAN_COLUMNS)}; evaluate again")
    if (info := read_info(table)) is not None:
        check_unchanged(source, text.sha256, info.organs_sha256, sidecar(table))
    rows = []
    problems = []
    for row in text.rows:
        try:
            name, label, organ, status, *volumes_ml = row.cells
            rows.append((name, int(label), organ, str(OrganStatus(status)), *map(float, volumes_ml)))
        except ValueError as error:
            problems.append(f"{source}: row {row.number}: {error}; evaluate again")
    if problems:
        raise InputError(listed(problems))
    return pd.DataFrame(rows, columns=ORGAN_COLUMNS)


def check_unchanged(source: Path, found: str, recorded: str, record: Path) -> None:
    """Refuse a table that is not the one whose hash was recorded: its numbers must not be printed beside that hash.

    Args:
        source: The table.
        found: SHA-256 of its bytes.
        recorded: What it was; empty where that is not known.
        record: The file that says so.

    Raises:
        InputError: another hash.
    """
    if recorded not in ("", found):
        raise InputError(
            f"{source}: was changed after it was written (its SHA-256 is {found[:12]}..., in {record.name} it is"
            f" {recorded[:12]}...); make it again, or move {record.name} away to use it as a table made elsewhere"
        )
