"""``duomod compare``: methods against a baseline, as sentences, a table and plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from duomod.console import say
from duomod.evaluation.comparison import ComparisonFile
from duomod.evaluation.comparison_text import comparison_text
from duomod.evaluation.critical_difference import write_critical_difference
from duomod.evaluation.method_values import read_method
from duomod.evaluation.paired_comparison import compare_methods
from duomod.evaluation.results import write_frame
from duomod.evaluation.settings import SEEDS, CompareSettings
from duomod.evaluation.summary_files import AGGREGATED
from duomod.extras import require_report_packages
from duomod.workspace import write_text


def run_compare(config: CompareSettings) -> Path:
    """Compare methods with a baseline, paired by case, with seeds averaged within the case.

    Writes into ``config.output``: ``comparison.txt`` (plain sentences), ``comparison.csv`` and ``comparison.json`` (all
    numbers) and, for three or more methods, ``critical_difference_<metric>_<scope>.svg`` and ``.png``.

    Returns:
        The path of ``comparison.txt``.

    Raises:
        InputError: lists all that makes the tables incomparable: other cases, classes, metrics or conventions.
    """
    output = config.output
    if len(config.tables) > 2:
        require_report_packages("a comparison of more than two methods")
    methods = [read_method(path, config.dataset) for path in config.tables]
    comparisons, rankings = compare_methods(methods, config.baseline, metrics=config.metrics, significance=config)
    base = next(method for method in methods if method.name == config.baseline)
    for (column, scope), ranking in rankings.items():
        for suffix in ("svg", "png"):
            target = output / f"critical_difference_{column}_{scope}.{suffix}"
            write_critical_difference(ranking, f"{scope} {column}", target)
    notes = [f"{method.name}: {note}" for method in methods for note in method.notes]
    notes += _not_aggregated(config.tables)
    text = comparison_text(comparisons, methods, base, rankings, config, notes)
    rows = [comparison.model_dump() for comparison in comparisons]
    write_frame(pd.DataFrame(rows), output / "comparison.csv")
    content = ComparisonFile(
        baseline=base.name,
        alpha=config.alpha,
        resamples=config.resamples,
        seed=config.seed,
        comparisons=tuple(comparisons),
    )
    write_text(output / "comparison.json", content.model_dump_json(indent=1) + "\n")
    write_text(output / "comparison.txt", text + "\n")
    for note in notes:
        say(note)
    return output / "comparison.txt"


def _not_aggregated(tables: Sequence[Path]) -> list[str]:
    """Sentences about methods beside the compared ones that have seeds and no aggregated table."""
    compared = {table.absolute().parent for table in tables}
    beside = {folder for base in compared if any(base.glob(SEEDS)) for folder in base.parent.iterdir()} - compared
    waiting = [folder for folder in sorted(beside) if any(folder.glob(SEEDS)) and not any(folder.glob(AGGREGATED))]
    return [f"{folder}: a method with seeds and no aggregated table; it is not compared" for folder in waiting]
