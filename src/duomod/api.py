"""The commands as functions, for programs and notebooks. ``import duomod`` offers them without loading anything heavy.

Each function takes the command's settings by name (``duomod settings evaluate`` lists them), a settings object or both.
It returns what the command wrote: paths, and tables as pandas data frames, read when they are asked for.
"""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from duomod.commands import COMMANDS, runner
from duomod.flags import options_of
from duomod.option_values import merged, nested
from duomod.settings import Settings, checked
from duomod.workspace import METRICS, PREDICTED, read_json, read_json_lines

if TYPE_CHECKING:
    import pandas as pd

Of = TypeVar("Of", bound=Settings)


@dataclass(frozen=True)
class Result(ABC):
    """What a command wrote. A notebook shows its paths and its table."""

    @property
    @abstractmethod
    def table(self) -> pd.DataFrame:
        """The result as one table."""

    def _repr_html_(self) -> str:
        paths = [(field.name, getattr(self, field.name)) for field in fields(self)]
        lines = [f"<div>{name}: <code>{html.escape(str(path))}</code></div>" for name, path in paths]
        return "".join(lines) + str(self.table.to_html(index=False, max_rows=20, na_rep=""))


@dataclass(frozen=True)
class Preprocessed(Result):
    """A preprocessed data set.

    Attributes:
        folder: What ``train`` takes as ``data_path``.
    """

    folder: Path

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a case: ``case``, ``role``, ``labelled``, ``modality``, ``shape`` (voxels, z y x), ``source``."""
        import pandas as pd

        from duomod.preprocessing.store import Store

        columns = ["case_id", "role", "labelled", "modality", "shape", "source"]
        rows = [[getattr(case, column) for column in columns] for case in Store.open(self.folder).cases.values()]
        return pd.DataFrame(rows, columns=["case", *columns[1:]])


@dataclass(frozen=True)
class Trained(Result):
    """A finished training.

    Attributes:
        folder: The run's folder.
        best: Checkpoint with the best validation Dice.
        last: Checkpoint of the last step.
    """

    folder: Path
    best: Path
    last: Path

    @cached_property
    def table(self) -> pd.DataFrame:
        """What was logged: a row a ``step``, a column a loss, rate or validation Dice; NaN where it was not logged."""
        import pandas as pd

        records = pd.DataFrame(read_json_lines(self.folder / METRICS))
        return records.groupby("step", sort=True).first().reset_index()


@dataclass(frozen=True)
class Predicted(Result):
    """Label maps on the grids of the scans.

    Attributes:
        folder: Where they lie.
    """

    folder: Path

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a case: ``case``, ``labels`` (path of the label map), ``scan`` (path, or None)."""
        import pandas as pd

        made = read_json(self.folder / PREDICTED)
        there = [case for case in sorted(made["cases"]) if (self.folder / f"{case}.nii.gz").is_file()]
        rows = [(case, self.folder / f"{case}.nii.gz", made["scans"].get(case)) for case in there]
        return pd.DataFrame(rows, columns=["case", "labels", "scan"])


@dataclass(frozen=True)
class Evaluated(Result):
    """Scores of label maps.

    Attributes:
        path: The result table, ``.csv`` or ``.xlsx``.
    """

    path: Path

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a case and organ: ``case``, ``organ``, and each metric in its own unit (Dice in 0..1, ASD in mm)."""
        import pandas as pd

        from duomod.datasets.spec import numbered_classes
        from duomod.evaluation.results import read_result

        result = read_result(self.path)
        organs = (result.info.classes if result.info else numbered_classes(result.num_foreground + 1))[1:]
        index = [(case, organ) for case in result.cases for organ in organs]
        values = {column: array.ravel() for column, array in result.values.items()}
        return pd.DataFrame({"case": [c for c, _ in index], "organ": [o for _, o in index], **values})


@dataclass(frozen=True)
class Aggregated(Result):
    """A method over its seeds.

    Attributes:
        path: The summary as text; the same as JSON lies beside it.
    """

    path: Path

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a metric and organ or average: ``mean`` and ``std`` over seeds, in the metric's own unit."""
        return _means([read_json(self.path.with_suffix(".json"))]).drop(columns="method")


@dataclass(frozen=True)
class Compared(Result):
    """Methods against a baseline.

    Attributes:
        path: The comparison in sentences.
    """

    path: Path

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a method, metric and scope: means, difference, interval, p values, effect sizes, a sentence."""
        import pandas as pd

        return pd.read_csv(self.path.with_suffix(".csv"))


@dataclass(frozen=True)
class Reported(Result):
    """A report that opens offline.

    Attributes:
        page: Its first page, ``index.html``.
    """

    page: Path

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a method, metric and organ or average: ``mean`` and ``std`` over seeds, in the metric's own unit."""
        methods = read_json(self.page.with_name("report.json"))["methods"]
        return _means([method["summary"] for method in methods.values()])


def _means(summaries: Sequence[Any]) -> pd.DataFrame:
    """Means and standard deviations over seeds, of summaries as they stand in JSON files."""
    import pandas as pd

    from duomod.evaluation.aggregate import Summary
    from duomod.evaluation.tables import method_table

    rows = []
    for summary in map(Summary.model_validate, summaries):
        for _, section in method_table([summary]).sections:
            spreads = [(row, row.spreads[0]) for row in section]
            rows += [
                (summary.method, row.metric.column, row.name, s.mean, s.std) for row, s in spreads if s is not None
            ]
    return pd.DataFrame(rows, columns=["method", "metric", "organ", "mean", "std"])


def preprocess(settings: Settings | None = None, /, **given: Any) -> Preprocessed:
    """Check a raw data set, bring every scan to one orientation and spacing, and make the splits.

    Raises:
        InputError: lists everything that is wrong with settings or data (true of all functions here).
    """
    return Preprocessed(_run("preprocess", settings, given))


def train(settings: Settings | None = None, /, **given: Any) -> Trained:
    """Train one model with one seed. ``max_epochs``, ``network`` and the other short flags are names here too."""
    best = _run("train", settings, given)
    return Trained(best.parents[1], best, best.with_name("last.pth"))


def predict(settings: Settings | None = None, /, **given: Any) -> Predicted:
    """Predict label maps on exactly the grid of the input scans. For images in memory: :class:`Predictor`."""
    return Predicted(_run("predict", settings, given))


def evaluate(settings: Settings | None = None, /, **given: Any) -> Evaluated:
    """Score label maps against the truth."""
    return Evaluated(_run("evaluate", settings, given))


def aggregate(settings: Settings | None = None, /, **given: Any) -> Aggregated:
    """Average a method's results over its seeds."""
    return Aggregated(_run("aggregate", settings, given))


def compare(settings: Settings | None = None, /, **given: Any) -> Compared:
    """Compare methods with a baseline, case by case."""
    return Compared(_run("compare", settings, given))


def report(settings: Settings | None = None, /, **given: Any) -> Reported:
    """Write a report that opens offline."""
    return Reported(_run("report", settings, given))


def _run(name: str, settings: Settings | None, given: Mapping[str, Any]) -> Path:
    command = next(command for command in COMMANDS if command.name == name)
    if settings is None:
        settings = _settings(command.settings, given)
    elif given:
        settings = _settings(type(settings), {**settings.model_dump(exclude_unset=True), **given})
    return cast(Path, runner(command)(settings))


def _settings(model: type[Of], given: Mapping[str, Any]) -> Of:
    """Settings by the names of fields or of flags (``max_epochs`` stands for ``settings.max_epochs``)."""
    flags = {name.lstrip("-"): option.field for option in options_of(model) for name in option.names}
    content: dict[str, Any] = {}
    for key, value in given.items():
        field = key if key in model.model_fields else flags.get(key, key)
        content = merged(content, nested(field, value))
    return checked(model, content, see=f"duomod settings {model.command}")
