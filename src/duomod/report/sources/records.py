"""What lies beside a result table: settings, learning curves, organs, and what training and prediction wrote down.

All of it comes from outside: it is read into checked models here, or left out and named. No report fails because of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from duomod.datasets.case_names import shown
from duomod.datasets.spec import DatasetSpec, Modality
from duomod.errors import InputError
from duomod.evaluation.results import ResultTable, organs_path, read_organs
from duomod.settings import Model, checked
from duomod.workspace import CONFIG, METRICS, PREDICTED, PREDICTIONS, TRAINED, read_json, read_json_lines, read_yaml

#: Logged value -> (steps, values).
Curves = dict[str, tuple[list[int], list[float]]]
Found = TypeVar("Found")

#: Characters of all settings of a run together: aliases of a YAML file can stand for far more than the file holds.
_MOST_TEXT = 1 << 20
#: Characters of a name or version in a record, and of a sentence about a fault; faults told of one file.
_SHORT, _FAULTS = 200, 3

#: More than any organ has.
_MOST_ML = 1e6

_Text = Annotated[str, Field(max_length=_SHORT)]
_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0)]


class _Record(BaseModel):
    """Data of a file that may hold more than is looked at."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class Training(_Record):
    """What a training wrote down at its end (``train_manifest.json``). Times in seconds."""

    duomod: _Text = ""
    python: _Text = ""
    torch: _Text = ""
    device: _Text = ""
    networks: _Text = ""
    finished: _Text = ""
    steps: _Count | None = None
    best_step: _Count | None = None
    best_validation_dice: Annotated[float, Field(ge=0, le=1)] | None = None
    seconds: _Amount | None = None
    cpu_seconds: _Amount | None = None
    peak_memory_mib: _Amount | None = None


class PredictionSettings(_Record):
    """How label maps were made: by which weights, and of what data set."""

    model_sha256: _Text = ""
    spec: DatasetSpec | None = None


class Prediction(_Record):
    """What a prediction wrote down (``prediction.json``), by case id; ``scans`` are paths of that time."""

    settings: PredictionSettings = PredictionSettings()
    scans: dict[str, str] = Field(default_factory=dict)
    modalities: dict[str, Modality] = Field(default_factory=dict)


@dataclass(frozen=True)
class LeftOut:
    """Something that could not be read, and is not in the report.

    Attributes:
        of: Method and seed, in words.
        what: The file, by its place in the run's folder; or whose scan or label map it is.
        reason: What is wrong with it.
    """

    of: str
    what: str
    reason: str

    def __str__(self) -> str:
        """As a sentence."""
        return f"{self.of}: {self.what} left out: {self.reason}"


@dataclass(frozen=True)
class Beside:
    """What was read beside a table.

    Attributes:
        organs: Per case and organ: Filename, Class, Name, Status, True_ml, Predicted_ml; None where not recorded.
        curves: What the training logged.
        settings: Content of config.yaml, empty where there is none.
        training: What the training wrote down.
        predictions: Folder of the label maps, or None if it is not to be found.
        prediction: What the prediction wrote down.
        left_out: What could not be read.
    """

    organs: pd.DataFrame | None = None
    curves: Curves = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    training: Training = field(default_factory=Training)
    predictions: Path | None = None
    prediction: Prediction = field(default_factory=Prediction)
    left_out: tuple[LeftOut, ...] = ()


def read_beside(table: ResultTable, of: str) -> Beside:
    """Read everything beside a result table that a report shows.

    Args:
        table: The table.
        of: Method and seed, in words, for what is left out.
    """
    folder = table.path.parent
    left_out: list[LeftOut] = []

    def attempt(path: Path, read: Callable[[Path], Found], otherwise: Found) -> Found:
        if not exists(path):
            return otherwise
        try:
            if not is_file(path):  # a named pipe would keep us waiting for ever
                raise InputError(f"{path}: is not a file")
            return read(path)
        except InputError as error:
            what = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else shown(path.name)
            left_out.append(LeftOut(of, what, _in_short([text.removeprefix(f"{path}: ") for text in error.problems])))
            return otherwise

    def read_log(path: Path) -> Curves:
        curves, problems = read_curves(path)
        left_out.extend(LeftOut(of, path.name, problem) for problem in problems)
        return curves

    recorded = Path(table.info.predictions) if table.info else None
    if recorded is not None and is_file(recorded):
        recorded = recorded.parent
    predictions = next((path for path in (folder / PREDICTIONS, recorded) if path and is_folder(path)), None)
    return Beside(
        organs=attempt(organs_path(table.path), lambda path: _organs(path, table), None),
        curves=attempt(folder / METRICS, read_log, {}),
        settings=attempt(folder / CONFIG, read_settings, {}),
        training=attempt(folder / TRAINED, lambda path: read_record(Training, path), Training()),
        predictions=predictions,
        prediction=(
            attempt(predictions / PREDICTED, lambda path: read_record(Prediction, path), Prediction())
            if predictions
            else Prediction()
        ),
        left_out=tuple(left_out),
    )


def _in_short(problems: Sequence[str]) -> str:
    """What is wrong with a file, in a length that fits a page: a file can hold any number of faults of any length."""
    texts = [text if len(text) <= _SHORT else f"{text[: _SHORT // 2]} ... {text[-_SHORT // 2 :]}" for text in problems]
    return shown("; ".join(texts[:_FAULTS])) + (f"; and {len(texts) - _FAULTS} more" if len(texts) > _FAULTS else "")


def read_record(model: type[Model], path: Path) -> Model:
    """Read what a stage wrote down.

    Raises:
        InputError: unreadable, or not of that model.
    """
    return checked(model, read_json(path), source=f"{path}: ")


def exists(path: Path) -> bool:
    """Whether there is something of this name; one that the system refuses (too long, NUL) is nothing."""
    return _said(path.exists)


def is_folder(path: Path) -> bool:
    """Whether there is a folder of this name; see :func:`exists`."""
    return _said(path.is_dir)


def is_file(path: Path) -> bool:
    """Whether there is a file of this name; see :func:`exists`."""
    return _said(path.is_file)


def _said(ask: Callable[[], bool]) -> bool:
    try:
        return ask()
    except (OSError, ValueError):
        return False


def read_curves(log: Path) -> tuple[Curves, list[str]]:
    """Read ``metrics.jsonl``. A last line cut off by a crash is left out.

    Returns:
        The curves, and sentences about values that are no finite numbers, which are left out.

    Raises:
        InputError: unreadable, or another line is no record with a step.
    """
    curves: Curves = {}
    odd: dict[str, int] = {}
    for number, record in enumerate(read_json_lines(log), start=1):
        step = record.pop("step", None)
        if not isinstance(step, int) or isinstance(step, bool) or step < 0:
            raise InputError(f"{log}: record {number} has no step; its curves are left out")
        for name, value in record.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                steps, values = curves.setdefault(name, ([], []))
                steps.append(step)
                values.append(float(value))
            elif value is not None:
                odd[name] = odd.get(name, 0) + 1
    return curves, [f"{count} value(s) of '{name[:_SHORT]}' are no finite numbers" for name, count in odd.items()]


def read_settings(path: Path) -> dict[str, Any]:
    """Read ``config.yaml``, as plain values of which none is shared with another.

    Raises:
        InputError: unreadable, no mapping, or its aliases stand for more text than a file of settings can hold.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: not the settings of a run (a mapping of names to values)")
    room = _MOST_TEXT

    def copied(value: Any) -> Any:
        nonlocal room
        if isinstance(value, dict):
            return {str(copied(key)): copied(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [copied(inner) for inner in value]
        room -= len(value) if isinstance(value, str) else 8
        if room < 0:
            raise InputError(
                f"{path}: its aliases stand for more than {_MOST_TEXT >> 20} MiB of text; write it without"
            )
        return value

    found: dict[str, Any] = copied(content)
    return found


def _organs(path: Path, table: ResultTable) -> pd.DataFrame | None:
    """The table of organs that belongs to a result table.

    Raises:
        InputError: unreadable, edited, or rows that do not fit the table's cases and classes.
    """
    frame = read_organs(table.path)
    if frame is None:
        return None
    fits = (
        frame["Filename"].isin(table.cases)
        & frame["Class"].between(1, table.num_foreground)
        & frame["True_ml"].between(0, _MOST_ML)
    )
    if not fits.all():
        row = 2 + int(fits.to_numpy().argmin())
        raise InputError(f"{path}: {int((~fits).sum())} row(s) do not fit the result table, such as row {row}")
    return frame
