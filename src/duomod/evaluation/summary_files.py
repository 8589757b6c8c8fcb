"""``duomod aggregate``: one method over its seeds, as text, JSON, a table of cases, and tables for a paper."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from duomod.console import say
from duomod.evaluation.aggregate import summarise
from duomod.evaluation.results import build_frame, write_frame
from duomod.evaluation.seeds import find_results
from duomod.evaluation.settings import AggregateSettings
from duomod.evaluation.tables import write_tables
from duomod.evaluation.texts import summary_text
from duomod.workspace import sha256, write_text

#: How aggregated tables are called, after the method.
_SUFFIX = "_aggregated_metrics"
AGGREGATED = f"*{_SUFFIX}.csv"


class Sources(BaseModel):
    """The content of ``<stem>_sources.json``: what an aggregated table was made of.

    ``seeds`` holds the tables' paths from the aggregated table's folder, ``sha256`` what they were then, ``missing``
    sentences about seeds and cases that are not in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    seeds: dict[str, str] = Field(default_factory=dict)
    sha256: dict[str, str] = Field(default_factory=dict)
    table_sha256: str = ""
    conventions: dict[str, Any] = Field(default_factory=dict)
    classes: tuple[str, ...] = ()
    tail_classes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def method_name(aggregated: Path) -> str:
    """The method's name as its aggregated table's name has it."""
    return aggregated.stem.removesuffix(_SUFFIX)


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
    aggregated = config.aggregated_csv_output or base / f"{name}{_SUFFIX}.csv"
    target = config.summary_output or base / f"{name}_summary_results.txt"
    write_frame(build_frame(summary.cases, per_case), aggregated)
    # Relative paths: the folder of a method can be moved, or looked at from another place.
    sources = Sources(
        method=name,
        seeds={seed: os.path.relpath(table.path, aggregated.parent) for seed, table in tables.items()},
        sha256={seed: table.sha256 for seed, table in tables.items()},
        table_sha256=sha256(aggregated),
        conventions=summary.conventions,
        classes=summary.classes,
        tail_classes=summary.tail_classes,
        missing=(*summary.missing, *summary.notes),
    )
    write_text(sources_path(aggregated), sources.model_dump_json(indent=1) + "\n")
    # NaN (a class in no case, the std of one seed) becomes null: JSON has no NaN.
    write_text(target.with_suffix(".json"), summary.model_dump_json(indent=1) + "\n")
    write_text(target, summary_text(summary) + "\n")
    write_tables([summary], config.table)
    for text in (*summary.missing, *summary.notes):
        say(f"{base}: {text}")
    return target
