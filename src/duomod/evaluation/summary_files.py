"""``duomod aggregate``: one method over its seeds, as text, JSON, a table of cases, and tables for a paper."""

from __future__ import annotations

import os
from pathlib import Path

from duomod.console import say
from duomod.evaluation.aggregate import find_results, summarise
from duomod.evaluation.results import build_frame, write_frame
from duomod.evaluation.settings import AggregateSettings
from duomod.evaluation.tables import write_tables
from duomod.evaluation.texts import summary_text
from duomod.workspace import write_json, write_text


def sources_path(aggregated: Path) -> Path:
    """Return the JSON file that names the tables behind an aggregated table."""
    return aggregated.with_name(f"{aggregated.stem}_sources.json")


def run_aggregate(config: AggregateSettings) -> Path:
    """Aggregate a method's seeds.

    Writes the summary as text, the same as JSON beside it, a CSV of per-case metrics averaged over seeds (for paired
    tests) with a JSON ``<stem>_sources.json`` that names the tables it came from, and the means as ``config.table``.

    Returns:
        The path of the summary's text.

    Raises:
        InputError: see :func:`find_results`; unknown data set; a group table without some case; a table's suffix.
    """
    base = config.method_base_dir
    name = base.resolve().name
    tables, missing = find_results(base, config.seed_pattern, config.results_filename, config.min_seeds)
    summary, per_case = summarise(base, tables, options=config, missing=missing)
    for text in summary.missing:
        say(f"{base}: {text}")
    write_tables([summary], config.table)
    aggregated = config.aggregated_csv_output or base / f"{name}_aggregated_metrics.csv"
    target = config.summary_output or base / f"{name}_summary_results.txt"
    write_frame(build_frame(summary.cases, per_case), aggregated)
    # Relative paths: the folder of a method can be moved, or looked at from another place.
    sources = {seed: os.path.relpath(table.path, aggregated.parent) for seed, table in tables.items()}
    write_json(
        sources_path(aggregated),
        {
            "method": name,
            "seeds": sources,
            "conventions": summary.conventions,
            "classes": list(summary.classes),
            "tail_classes": list(summary.tail_classes),
        },
    )
    # NaN (a class in no case, the std of one seed) becomes null: JSON has no NaN.
    write_text(target.with_suffix(".json"), summary.model_dump_json(indent=1) + "\n")
    write_text(target, summary_text(summary) + "\n")
    return target
