"""The result tables of a method's seeds: which are there, which are not and why, and which may be averaged."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np

from duomod.errors import InputError
from duomod.evaluation.results import ResultTable, read_result, sidecar
from duomod.evaluation.table_file import listed
from duomod.workspace import PREDICTED, PREDICTIONS, TRAINED, read_json

#: Tables with fewer values than this may be equal by chance (perfect scores of a tiny set).
_CHANCE = 20


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Orders ``seed_2`` before ``seed_10``."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.name)]


def find_results(
    base: Path, seed_pattern: str, results_filename: str, min_seeds: int
) -> tuple[dict[str, ResultTable], list[str]]:
    """Read the result table of every seed folder.

    Returns:
        Tables by seed folder name, and sentences about seeds without one.

    Raises:
        InputError: no such folder, fewer than ``min_seeds`` results, or results that cannot be read.
    """
    if not base.is_dir():
        raise InputError(f"{base}: no such folder; give the folder that holds seed_0, seed_1, ...")
    folders = sorted((path for path in base.glob(seed_pattern) if path.is_dir()), key=natural_order)
    stem = results_filename.removesuffix(".csv").removesuffix(".xlsx")
    tables: dict[str, ResultTable] = {}
    missing: list[str] = []
    problems: list[str] = []
    for folder in folders:
        there = [folder / f"{stem}{end}" for end in (".csv", ".xlsx") if (folder / f"{stem}{end}").is_file()]
        if not there:
            missing.append(f"{folder.name} has no {stem}.csv or {stem}.xlsx{_in_brackets(how_far(folder, stem))}")
            continue
        source = there[0]
        try:
            tables[folder.name] = read_result(source)
        except InputError as error:
            problems += error.problems
    if len(tables) + len(problems) < min_seeds:
        found = ", ".join(tables) or "none"
        problems.append(
            f"{base}: {min_seeds} seeds are needed (--min_seeds), {len(tables)} found ({found})"
            + (f"; {'; '.join(missing)}" if missing else f"; no folder matches '{seed_pattern}'" if not folders else "")
        )
    problems += incompatible(tables)
    if problems:
        raise InputError(problems)
    return tables, missing


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def how_far(folder: Path, stem: str) -> str:
    """How far a run without result has come, in words; empty where nothing tells.

    Args:
        folder: Of the run.
        stem: Name of the result, without ending.
    """
    scored = len(list((folder / f".{stem}_cases").glob("*.json")))
    if scored:
        return f"its evaluation has not ended: {scored} cases are scored"
    predictions = folder / PREDICTIONS
    if (predictions / PREDICTED).is_file():
        try:
            planned = list(dict(read_json(predictions / PREDICTED)["cases"]))
        except (InputError, KeyError, TypeError, ValueError):
            planned = []
        done = sum((predictions / f"{case}.nii.gz").is_file() for case in planned)
        if done < len(planned):
            return f"its prediction has not ended: {done} of {len(planned)} cases"
        return "predicted and not evaluated"
    if (folder / TRAINED).is_file():
        return "trained and not predicted"
    return "its training has not ended" if (folder / "ckpts").is_dir() else ""


def incompatible(tables: dict[str, ResultTable]) -> list[str]:
    """Seeds whose tables must not be averaged: other metrics, other classes, other conventions."""
    problems = []
    seeds = list(tables)
    for seed in seeds[1:]:
        first, other = tables[seeds[0]], tables[seed]
        if list(first.values) != list(other.values) or first.num_foreground != other.num_foreground:
            problems.append(
                f"{other.path}: has {', '.join(other.values)} of {other.num_foreground} classes, but {first.path} has"
                f" {', '.join(first.values)} of {first.num_foreground}; evaluate both in the same way"
            )
        if first.info and other.info and first.info.conventions != other.info.conventions:
            names = [k for k, v in first.info.conventions.items() if other.info.conventions.get(k) != v]
            problems.append(f"{other.path}: other conventions than {first.path} ({', '.join(names)}); evaluate again")
    return problems


def doubts(tables: dict[str, ResultTable]) -> list[str]:
    """Sentences about tables that are there and may not be what they should: for the reader of their average."""
    found = []
    described = any(table.info for table in tables.values())
    for seed, table in tables.items():
        if table.info is None and described:
            found.append(
                f"{seed}: no {sidecar(table.path).name}, so how it was scored is unknown, or not yet at its end"
            )
        if table.info is None:
            continue
        if lacking := table.info.missing_predictions:
            found.append(f"{seed}: no prediction of {', '.join(listed(lacking))}; scored as all-missed")
        if strangers := table.info.unlisted_predictions:
            found.append(f"{seed}: {', '.join(listed(strangers))} not of the model that {PREDICTED} names")
        found += [f"{seed}: mixed up? {one}" for one in table.info.mix_ups]
    return found + _copies(tables)


def _copies(tables: dict[str, ResultTable]) -> list[str]:
    """Sentences about seeds whose tables are equal in every value: a copied folder makes a spread too small."""
    return [
        f"{other.path} has the values of {one.path}, every one; is it a copy?"
        for one, other in itertools.combinations(tables.values(), 2)
        if one.cases == other.cases
        and len(one.cases) * one.num_foreground >= _CHANCE
        and all(np.array_equal(values, other.values[column], True) for column, values in one.values.items())
    ]
