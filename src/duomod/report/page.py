"""The report: one folder with a page that opens offline, its pictures, and a viewer of every case."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup

from duomod.console import progress, say
from duomod.errors import InputError
from duomod.evaluation.comparison import Comparison
from duomod.evaluation.critical_difference import write_critical_difference
from duomod.evaluation.method_values import FOREGROUND, TAIL
from duomod.evaluation.paired_comparison import compare_methods
from duomod.evaluation.significance import Ranking
from duomod.extras import require_report_packages
from duomod.report.assets import copy_assets
from duomod.report.assets.palette import FALSE_NEGATIVE, FALSE_POSITIVE
from duomod.report.cells import class_cells, hash_cells, missed_cells, setting_cells, summary_cells
from duomod.report.charts import all_charts
from duomod.report.settings import ReportSettings
from duomod.report.sources.collect import Collection, baseline_of, collect
from duomod.report.sources.files import CaseFiles, locate
from duomod.report.sources.scans import Overlay
from duomod.report.templates import render, script_json
from duomod.report.viewer.case import write_case
from duomod.report.worst import WorstCase, worst_cases
from duomod.version import __version__
from duomod.workspace import part_folder, write_text

#: Written last into a report's folder; by it a folder is known to be a report, which a new one may replace.
REPORT = "report.json"


def run_report(config: ReportSettings) -> Path:
    """Write a report of several methods into a folder that opens offline in a browser.

    ``config.runs`` are folders of methods with ``seed_*`` folders, single evaluated folders, or folders of methods. A
    report that is in ``config.output`` already is replaced in one step; another folder is not touched.

    Returns:
        The path of ``index.html``.

    Raises:
        InputError: runs that cannot be read or do not fit together, missing scans, label maps off the scan's grid, or
            an output folder that holds something else.
    """
    require_report_packages("duomod report")
    output = config.output
    if output.exists() and not (output / REPORT).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output}: exists and is not a report; choose another --output, or move it away")
    collection = collect(config.runs, config.dataset)
    base = baseline_of(collection, config.baseline)
    cases, notes = locate(collection, config.images, config.truth)
    with part_folder(output.parent) as temporary:
        folder = temporary / "report"
        _write_report(folder, config, collection, base, cases, notes)
        _replace(folder, output)
    for note in notes:
        say(note)
    return output / "index.html"


def _write_report(
    folder: Path,
    config: ReportSettings,
    collection: Collection,
    base: str,
    cases: Sequence[CaseFiles],
    notes: Sequence[str],
) -> None:
    comparisons, rankings, not_compared = _compared(collection, base)
    charts = all_charts(collection)
    copy_assets(folder / "assets")
    ranks = _write_ranks(rankings, folder)
    pictured = worst_cases(collection, cases, config.worst, folder)
    viewable = _write_viewer(collection, cases, folder, config.all_seeds) if config.viewer else []
    page = render(
        "index.html.j2",
        title=config.title or _title(collection),
        collection=collection,
        facts=_facts(collection),
        notes=notes,
        baseline=base,
        summary=summary_cells(collection),
        classes=class_cells(collection),
        missed=missed_cells(collection),
        settings=setting_cells(collection),
        hashes=hash_cells(collection),
        comparisons=comparisons,
        not_compared=not_compared,
        ranks=ranks,
        charts=charts,
        figures=Markup(script_json({c.key: c.figure() for group in charts.values() for c in group})),
        worst=pictured,
        viewable=viewable,
        colours={"missed": FALSE_NEGATIVE, "surplus": FALSE_POSITIVE},
        version=__version__,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_text(folder / "index.html", page)
    write_text(folder / REPORT, _record(collection, base, comparisons, pictured, notes))


def _replace(folder: Path, output: Path) -> None:
    """Put a finished folder where an older report may be; if that fails, the older one stays."""
    if not output.exists():
        folder.rename(output)
        return
    older = folder.with_name("older")
    output.rename(older)
    try:
        folder.rename(output)
    except OSError:
        older.rename(output)
        raise
    shutil.rmtree(older)


def _title(collection: Collection) -> str:
    info = collection.methods[0].seeds[0].table.info
    return f"Segmentation report: {info.dataset}" if info and info.dataset else "Segmentation report"


def _facts(collection: Collection) -> list[str]:
    """What was done, in a few words each."""
    seeds = sorted({len(method.seeds) for method in collection.methods})
    configs = [seed.config for method in collection.methods for seed in method.seeds if seed.settings]
    labelled = sorted({len(config.get("split.labelled") or ()) for config in configs} - {0})
    facts = [
        _count(len(collection.methods), "method"),
        f"{_either(seeds)} seed{'' if seeds == [1] else 's'} each",
        _count(len(collection.cases), "case"),
        _count(len(collection.classes), "organ class", "organ classes"),
    ]
    if labelled:
        facts.append(f"{_either(labelled)} labelled training scans")
    networks = sorted({kind for config in configs for kind in _kinds(config.get("networks") or "")})
    if networks:
        facts.append(f"network{'' if len(networks) == 1 else 's'} {', '.join(networks)}")
    return facts


def _kinds(networks: str) -> list[str]:
    """The kinds of network in a record such as ``2 x VNet + teacher``."""
    return [part.split(" x ")[-1] for part in networks.split(" + ") if part not in ("", "teacher")]


def _either(numbers: Sequence[int]) -> str:
    return " or ".join(map(str, numbers))


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _compared(collection: Collection, baseline: str) -> tuple[list[Comparison], Mapping[tuple[str, str], Ranking], str]:
    """Compare with the baseline; or say in words why that cannot be done."""
    if len(collection.methods) < 2:
        return [], {}, "There is one method only; give the runs of others too, to compare them."
    try:
        methods = [method.for_comparison() for method in collection.methods]
        comparisons, rankings = compare_methods(methods, baseline, metrics=collection.columns, per_class=False)
    except InputError as error:
        return [], {}, " ".join(error.problems)
    return comparisons, rankings, ""


def _write_ranks(rankings: Mapping[tuple[str, str], Ranking], folder: Path) -> list[str]:
    """Draw the critical-difference plots of Dice; return their names."""
    names = []
    for scope in (FOREGROUND, TAIL):
        if ("Dice", scope) in rankings:
            names.append(f"ranks_{scope}.svg")
            write_critical_difference(rankings["Dice", scope], f"{scope} Dice", folder / names[-1])
    return names


def _write_viewer(
    collection: Collection, cases: Sequence[CaseFiles], folder: Path, all_seeds: bool
) -> list[dict[str, str]]:
    """Write the viewer's volume of every case whose scan was found; return their ids and files."""
    sources = []
    names = ("background", *collection.classes)
    several = all_seeds and any(len(method.seeds) > 1 for method in collection.methods)
    for entry in cases:
        overlays = []
        for method in collection.methods:
            of_method = [seed for seed in method.seeds if (method.name, seed.name) in entry.predictions]
            for seed in of_method if all_seeds else of_method[:1]:
                name = f"{method.name}, {seed.name}" if several else method.name
                overlays.append(Overlay(name, entry.predictions[method.name, seed.name]))
        if (source := entry.source(overlays, names)) is not None:
            sources.append(source)
    written = []
    with progress("viewer", len(sources)) as advance:
        for number, source in enumerate(sources, start=1):
            file = f"cases/{number}.js"
            write_case(folder / file, source)
            written.append({"case": source.case, "file": file})
            advance(source.case)
    return written


def _record(
    collection: Collection,
    baseline: str,
    comparisons: Sequence[Comparison],
    pictured: Mapping[str, Sequence[WorstCase]],
    notes: Sequence[str],
) -> str:
    """All numbers of the page as JSON; undefined ones are null."""
    methods = {
        method.name: {
            "summary": json.loads(method.summary.model_dump_json()),
            "seeds": {
                seed.name: {"folder": str(seed.folder), "training": seed.training, "settings": seed.config}
                for seed in method.seeds
            },
            "worst_cases": [asdict(case) for case in pictured[method.name]],
        }
        for method in collection.methods
    }
    content = {
        "duomod": __version__,
        "baseline": baseline,
        "methods": methods,
        "comparisons": [json.loads(comparison.model_dump_json()) for comparison in comparisons],
        "notes": list(notes),
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
