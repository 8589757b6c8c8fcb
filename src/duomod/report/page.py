"""The report: one folder with a page that opens offline, its pictures, and a viewer of every case."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
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
from duomod.report.cells import (
    class_cells,
    hash_cells,
    left_out_cells,
    missed_cells,
    setting_cells,
    summary_cells,
    unfinished_cells,
)
from duomod.report.charts import all_charts
from duomod.report.presenting import anonymous, not_told, places_of, without_paths
from duomod.report.settings import ReportSettings
from duomod.report.sources.collect import Collection, baseline_of, collect
from duomod.report.sources.files import CaseFiles, locate, remarks, strangers
from duomod.report.sources.records import LeftOut
from duomod.report.sources.scans import Overlay, read_case
from duomod.report.templates import render, script_json
from duomod.report.viewer.case import write_case
from duomod.report.worst import WorstCase, worst_cases
from duomod.version import __version__
from duomod.whole_folder import check_replaceable, replaced_folder, write_record
from duomod.workspace import write_text

#: Written last into a report's folder; by it a folder is known to be a report, which a new one may replace.
REPORT = "report.json"


def run_report(config: ReportSettings) -> Path:
    """Write a report of several methods into a folder that opens offline in a browser.

    ``config.runs`` are folders of methods with ``seed_*`` folders, single evaluated folders, or folders of methods. An
    older report in ``config.output`` is replaced in one step; anything else that is there is refused.

    Returns:
        The path of ``index.html``.

    Raises:
        InputError: tables that cannot be read or do not fit together, scans that a given folder lacks, or an output
            folder that holds something that is not of an older report, or was changed since. What else cannot be read
            is left out, and named on the page and in the terminal.
    """
    require_report_packages("duomod report")
    check_replaceable(config.output, REPORT, "report")
    collection = collect(config.runs, config.dataset, parents=not config.anonymous)
    base = baseline_of(collection, config.baseline)
    cases = locate(collection, config.images, config.truth)
    with replaced_folder(config.output, REPORT, "report") as folder:
        said = _write_report(folder, config, collection, base, cases)
    for sentence in dict.fromkeys(said):
        say(sentence)
    return config.output / "index.html"


def _write_report(
    folder: Path, config: ReportSettings, collection: Collection, base: str, cases: Sequence[CaseFiles]
) -> list[str]:
    """Write all files of a report; return what is to be said about it."""
    compared = _compared(collection, base)
    strange = strangers(collection)
    said = [*compared.why_not, *_notes(collection), *strange]
    left_out = list(collection.left_out)
    places = places_of(collection, cases)
    tell = not_told if config.anonymous else places.shortened
    if config.anonymous:
        collection, cases = anonymous(collection, cases)
    collection = without_paths(collection, places)
    copy_assets(folder / "assets")
    ranks = _write_ranks(compared.rankings, folder)
    pictured, unread = worst_cases(collection, cases, config.worst, folder)
    viewable, more, doubts = _write_viewer(collection, cases if config.viewer else (), folder, config.all_seeds)
    left_out = list(dict.fromkeys([*left_out, *unread, *more]))
    lacking = remarks(collection, cases)
    notes = list(dict.fromkeys([*_notes(collection), *lacking, *map(tell, [*strange, *doubts])]))
    told = [replace(one, reason=tell(one.reason)) for one in left_out]
    charts = all_charts(collection)
    page = render(
        "index.html.j2",
        title=config.title or _title(collection),
        collection=collection,
        facts=_facts(collection),
        notes=notes,
        unfinished=unfinished_cells(collection),
        left_out=left_out_cells(told),
        baseline=base,
        summary=summary_cells(collection),
        classes=class_cells(collection),
        missed=missed_cells(collection),
        settings=setting_cells(collection),
        resolved=_resolved_settings(collection),
        hashes=hash_cells(collection),
        comparisons=compared.comparisons,
        not_compared=[tell(reason) for reason in compared.why_not],
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
    record = _record(collection, base, compared.comparisons, pictured)
    write_record(folder, REPORT, {**record, "notes": notes, "left_out": [asdict(one) for one in told]})
    unfinished = [f"{run.run}: no result yet ({run.state})" for run in collection.unfinished]
    return [*said, *lacking, *doubts, *unfinished, *map(str, left_out)]


def _notes(collection: Collection) -> list[str]:
    """Sentences about the tables: what was left out of them, and what is doubtful."""
    return [note for method in collection.methods for note in method.summary.notes]


def _resolved_settings(collection: Collection) -> list[tuple[str, str]]:
    """Method and seed, and all settings of its training as YAML, where they are known."""
    return [
        (seed.place, yaml.safe_dump(seed.beside.settings, sort_keys=False, allow_unicode=True, width=1000))
        for method in collection.methods
        for seed in method.seeds
        if seed.beside.settings
    ]


def _title(collection: Collection) -> str:
    info = collection.methods[0].seeds[0].table.info
    return f"Segmentation report: {info.dataset}" if info and info.dataset else "Segmentation report"


def _facts(collection: Collection) -> list[str]:
    """What was done, in a few words each."""
    seeds = sorted({len(method.seeds) for method in collection.methods})
    configs = [seed.config for method in collection.methods for seed in method.seeds]
    lists = [config.get("split.labelled") for config in configs]
    labelled = sorted({len(ids) for ids in lists if isinstance(ids, list)} - {0})
    facts = [
        _count(len(collection.methods), "method"),
        f"{_either(seeds)} seed{'' if seeds == [1] else 's'} each",
        _count(len(collection.cases), "case"),
        _count(len(collection.classes), "organ class", "organ classes"),
    ]
    if labelled:
        facts.append(f"{_either(labelled)} labelled training scans")
    networks = sorted({kind for config in configs for kind in _kinds(str(config.get("networks") or ""))})
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


@dataclass(frozen=True)
class _Compared:
    """Comparisons with the baseline and the ranks of the methods, by metric and scope; or why there are none."""

    comparisons: Sequence[Comparison] = ()
    rankings: Mapping[tuple[str, str], Ranking] = field(default_factory=dict)
    why_not: tuple[str, ...] = ()


def _compared(collection: Collection, baseline: str) -> _Compared:
    """Compare with the baseline; or say in words why that cannot be done."""
    if len(collection.methods) < 2:
        return _Compared()
    try:
        methods = [method.for_comparison() for method in collection.methods]
        return _Compared(*compare_methods(methods, baseline, metrics=collection.columns, per_class=False))
    except InputError as error:
        return _Compared(why_not=error.problems)


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
) -> tuple[list[dict[str, str]], list[LeftOut], list[str]]:
    """Write the viewer's volume of every case whose scan can be read.

    Returns:
        Ids and files, what cannot be read, and what is doubtful of the files that can.
    """
    names = ("background", *collection.classes)
    sources = [
        (entry, source)
        for entry in cases
        if (source := entry.source(_overlays(collection, entry, all_seeds), len(names))) is not None
    ]
    written = []
    left_out: list[LeftOut] = []
    doubts: list[str] = []
    with progress("viewer", len(sources)) as advance:
        for number, (entry, source) in enumerate(sources, start=1):
            images, problems = read_case(source)
            left_out += [entry.left_out(problem) for problem in problems]
            if images is not None:
                doubts += images.doubts
                file = f"cases/{number}.js"
                write_case(folder / file, entry.name, images, names)
                written.append({"case": entry.name, "file": file})
            advance(entry.name)
    return written, left_out, doubts


def _overlays(collection: Collection, entry: CaseFiles, all_seeds: bool) -> list[Overlay]:
    """The label maps of a case that the viewer shows: of each method's first seed, or of all."""
    several = all_seeds and any(len(method.seeds) > 1 for method in collection.methods)
    overlays = []
    for method in collection.methods:
        of_method = [seed for seed in method.seeds if (method.name, seed.name) in entry.predictions]
        for seed in of_method if all_seeds else of_method[:1]:
            name = f"{method.name}, {seed.name}" if several else method.name
            overlays.append(Overlay(name, entry.predictions[method.name, seed.name]))
    return overlays


def _record(
    collection: Collection,
    baseline: str,
    comparisons: Sequence[Comparison],
    pictured: Mapping[str, Sequence[WorstCase]],
) -> dict[str, Any]:
    """All numbers of the page, as JSON has them; undefined ones are null."""
    methods = {
        method.name: {
            "summary": json.loads(method.summary.model_dump_json()),
            "seeds": {
                seed.name: {
                    "folder": seed.place,
                    "training": seed.beside.training.model_dump(mode="json"),
                    "settings": seed.config,
                }
                for seed in method.seeds
            },
            "worst_cases": [asdict(case) for case in pictured[method.name]],
        }
        for method in collection.methods
    }
    return {
        "duomod": __version__,
        "baseline": baseline,
        "methods": methods,
        "unfinished": [asdict(run) for run in collection.unfinished],
        "comparisons": [json.loads(comparison.model_dump_json()) for comparison in comparisons],
    }
