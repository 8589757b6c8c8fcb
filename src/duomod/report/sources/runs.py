"""Which folders a report is about: methods with their runs, and runs that have no result yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from duomod.datasets.case_names import shown
from duomod.errors import InputError
from duomod.evaluation.seeds import how_far, natural_order
from duomod.evaluation.settings import RESULT, RESULT_TABLE, SEEDS
from duomod.report.sources.records import read_curves, read_settings
from duomod.workspace import CONFIG, METRICS, PREDICTIONS, TRAINED

#: By these a folder is known to be a run's, also before it has a result.
_OF_A_RUN = (CONFIG, METRICS, TRAINED, PREDICTIONS)


@dataclass(frozen=True)
class Group:
    """The runs of one method.

    Attributes:
        base: The method's folder.
        finished: Result tables, in the natural order of their folders.
        unfinished: Folders of runs without a result.
    """

    base: Path
    finished: tuple[Path, ...]
    unfinished: tuple[Path, ...]


@dataclass(frozen=True)
class Unfinished:
    """A run without a result, and how far it has come."""

    run: str
    state: str


def group_runs(runs: Sequence[Path]) -> list[Group]:
    """Sort run folders by method, in the order given; a folder that is given twice counts once.

    Args:
        runs: Folders of methods (with ``seed_*`` folders), single runs, or folders of both. Seed folders of one parent
            are one method.

    Raises:
        InputError: names every folder that holds no run; or no run has a result yet.
    """
    problems: list[str] = []
    found: dict[Path, dict[Path, None]] = {}
    for run in runs:
        try:
            for base, folders in _methods_in(run):
                found.setdefault(base, {}).update(dict.fromkeys(folders))
        except InputError as error:
            problems += error.problems
    groups = []
    for base, members in found.items():
        folders = sorted(members, key=natural_order)
        tables = {folder: result_in(folder) for folder in folders}
        finished = tuple(table for table in tables.values() if table is not None)
        groups.append(Group(base, finished, tuple(folder for folder, table in tables.items() if table is None)))
    if not problems and not any(group.finished for group in groups):
        states = [f"{shown(folder)}: {state_of(folder)}" for group in groups for folder in group.unfinished]
        problems = [f"no run has a {RESULT_TABLE} yet; run `duomod evaluate` first", *states]
    if problems:
        raise InputError(problems)
    return groups


def _methods_in(run: Path) -> list[tuple[Path, list[Path]]]:
    """The folder of each method in a folder, and the runs of it that are meant."""
    if not run.is_dir():
        raise InputError(f"{run}: no such folder; give a run folder of `duomod train` or `duomod pipeline`")
    here = run.resolve()
    if found := _method(here):
        return [found]
    inside = [found for path in sorted(here.iterdir()) if path.is_dir() and (found := _method(path))]
    if not inside:
        raise InputError(
            f"{run}: holds no {RESULT_TABLE}, no {SEEDS}/{RESULT_TABLE} and no folder with these; evaluate first"
        )
    return inside


def _method(folder: Path) -> tuple[Path, list[Path]] | None:
    """A folder as a method's: one of its runs, or all of them; None if it is neither."""
    if folder.match(SEEDS):
        return folder.parent, [folder]
    if result_in(folder) is not None:
        return folder, [folder]
    if seeds := [path for path in folder.glob(SEEDS) if path.is_dir()]:
        return folder, seeds
    return (folder, [folder]) if any((folder / name).exists() for name in _OF_A_RUN) else None


def result_in(folder: Path) -> Path | None:
    """The result table of a run, or None."""
    tables = [folder / f"{RESULT}{ending}" for ending in (".csv", ".xlsx")]
    return next((table for table in tables if table.is_file()), None)


def method_names(groups: Sequence[Group], parents: bool = True) -> list[str]:
    """Folder names; where two are alike, with as many of their parents as tell them apart, or with a number."""
    bases = [group.base for group in groups]
    names = [shown(base.name or str(base)) for base in bases]
    if not parents:
        return [
            f"{name} ({names[: index + 1].count(name)})" if names.count(name) > 1 else name
            for index, name in enumerate(names)
        ]
    for depth in range(2, 1 + max(len(base.parts) for base in bases)):
        names = [
            shown("/".join(base.parts[-depth:])) if names.count(name) > 1 else name
            for base, name in zip(bases, names, strict=True)
        ]
    return names


def unfinished_of(names: Iterable[str], groups: Iterable[Group]) -> list[Unfinished]:
    """All runs without a result, by method and run."""
    return [
        Unfinished(name if folder == group.base else f"{name}, {shown(folder.name)}", state_of(folder))
        for name, group in zip(names, groups, strict=True)
        for folder in group.unfinished
    ]


def state_of(folder: Path) -> str:
    """How far a run without a result has come, in words."""
    if (folder / METRICS).is_file() and not any((folder / name).exists() for name in (TRAINED, PREDICTIONS)):
        return f"its training has not ended: {_progress(folder)}"
    return how_far(folder, RESULT) or ("nothing logged yet" if (folder / CONFIG).is_file() else "nothing there yet")


def _progress(folder: Path) -> str:
    """Steps done of how many, the best validation Dice so far, and when that was written."""
    log = folder / METRICS
    try:
        curves, _ = read_curves(log)
    except InputError as error:
        return str(error).removeprefix(f"{log}: ")
    done = max((steps[-1] + 1 for steps, _ in curves.values()), default=0)
    total = _steps_in_all(folder / CONFIG)
    parts = [f"step {done}" + (f" of {total}" if total else "")]
    if "val_dice" in curves:
        parts.append(f"best validation Dice {100 * max(curves['val_dice'][1]):.1f} %")
    written = datetime.fromtimestamp(log.stat().st_mtime, UTC)
    parts.append(f"last logged {written:%Y-%m-%d %H:%M} UTC")
    return ", ".join(parts)


def _steps_in_all(config: Path) -> int | None:
    try:
        run = read_settings(config)
        return int((run["train"]["max_epochs"] + run["train"]["final_epoch"]) * run["steps_per_epoch"])
    except (InputError, KeyError, TypeError, ValueError):
        return None
