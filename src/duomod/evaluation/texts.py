"""What evaluation and aggregation print: plain text tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from duomod.errors import InputError
from duomod.evaluation.metrics import Metric
from duomod.evaluation.results import FloatArray, ResultInfo, read_result, sidecar
from duomod.evaluation.table_file import listed

if TYPE_CHECKING:
    from duomod.evaluation.aggregate import Spread, Summary


def _mean(values: FloatArray) -> float:
    """Mean of the defined values; NaN if there is none."""
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _number(value: float, metric: Metric) -> str:
    return "n/a" if np.isnan(value) else f"{value * metric.scale:.{metric.decimals}f}"


def _name_width(classes: Sequence[str]) -> int:
    """Width of the column of class names: the published 22, or more where a name is longer."""
    return max(22, *map(len, classes))


def evaluation_text(info: ResultInfo, values: dict[str, FloatArray]) -> str:
    """Return the table printed after one evaluation: per class, the mean over cases and what became of the organ."""
    metrics = info.metrics
    widths = [max(len(metric.title), 9) for metric in metrics]
    first = _name_width(info.classes)
    head = f"{'Class':<{first}}" + "".join(f" | {m.title:>{w}}" for m, w in zip(metrics, widths, strict=True))
    head += " | detected | misplaced | missed | false | absent"
    lines = [head, "-" * len(head)]

    def row(name: str, numbers: Sequence[float], counts: dict[str, int]) -> str:
        cells = "".join(f" | {_number(v, m):>{w}}" for v, m, w in zip(numbers, metrics, widths, strict=True))
        return (
            f"{name:<{first}}{cells} | {counts['detected']:>8} | {counts['misplaced']:>9} | {counts['missed']:>6}"
            f" | {counts['false']:>5} | {counts['absent']:>6}"
        )

    for index, name in enumerate(info.classes[1:]):
        lines.append(row(name, [_mean(values[m.column][:, index]) for m in metrics], info.organs[name]))
    lines.append("-" * len(head))
    overall = [_mean(np.asarray([_mean(case) for case in values[m.column]])) for m in metrics]
    lines.append(row("mean over cases", overall, info.organs["total"]))
    lines.append(f"Empty classes ({info.conventions['empty_policy']}): {info.conventions['empty_policy_meaning']}.")
    if info.missing_predictions:
        lines.append(f"Missing predictions, scored as all-missed: {', '.join(info.missing_predictions)}.")
    return "\n".join([*lines, *notes_of(info)])


def notes_of(info: ResultInfo) -> list[str]:
    """Sentences about truths stored in another order, and about labels or sides that seem exchanged."""
    alike: dict[str, list[str]] = {}
    for case, how in info.reordered.items():
        alike.setdefault(how, []).append(case)
    lines = [
        f"Truth stored in another order than the prediction and read in the prediction's ({how}):"
        f" {', '.join(listed(cases))}."
        for how, cases in alike.items()
    ]
    return [*lines, *(f"Mixed up? {one}." for one in info.mix_ups)]


def result_text(table: Path) -> str:
    """The table printed after one evaluation, from the files it wrote.

    Raises:
        InputError: the files are missing or something else.
    """
    result = read_result(table)
    if result.info is None:
        raise InputError(f"{sidecar(table)}: file not found; evaluate again")
    return evaluation_text(result.info, result.values)


def _as_typed(base: str) -> str:
    """A relative folder as people type it: pathlib drops the leading ./."""
    return base if base.startswith((".", "/")) or ":" in base else f"./{base}"


def _spread(spread: Spread, metric: Metric, width: int = 0, std_width: int = 0) -> str:
    if np.isnan(spread.mean):
        return f"{'n/a':>{width}}"
    mean, std = (_number(value, metric) for value in (spread.mean, spread.std))
    return f"{mean:>{width}} ± {std:>{std_width}}"


def summary_text(summary: Summary) -> str:
    """Return the summary of one method over its seeds, in the published form, with its conventions below."""
    metrics = [(values.metric, values) for values in summary.metrics.values()]
    lines = [
        f"📊 Aggregated Summary Results (Mean ± Std from {len(summary.seeds)} seeds)",
        f"Method Base Directory: {_as_typed(summary.base)}",
        "=" * 70,
        "",
        "🔷 Per-Class Metrics:",
        "-" * 50,
    ]
    # The published widths: 18 for an overlap (Dice), 19 for a distance (ASD); a longer name makes its column wider.
    widths = [max(len(metric.title), 18 if metric.kind == "overlap" else 19) for metric, _ in metrics]
    first = _name_width(summary.classes)
    head = f"{'Class':<{first}}" + "".join(f" | {m.title:>{w}}" for (m, _), w in zip(metrics, widths, strict=True))
    lines += [head, "-" * (len(head) - 1)]
    for index, name in enumerate(summary.classes[1:]):
        row = f"{name:<{first}}"
        for (metric, values), width in zip(metrics, widths, strict=True):
            overlap = metric.kind == "overlap"
            cell = _spread(values.per_class[index], metric, width - (9 if overlap else 10), 5 if overlap else 6)
            row += f" | {cell:<{width}}"
        lines.append(row.rstrip())
    lines += ["", "🔷 Overall & Tail Average Metrics:", "-" * 50, f"{'Metric':<22} | Value (Mean ± Std)", "-" * 50]
    lines += [f"{'Avg Foreground ' + m.column:<22} | {_spread(v.foreground, m)}" for m, v in metrics]
    if summary.tail_classes:
        lines.append("-" * 50)
        lines += [f"{'Avg Tail ' + m.column:<22} | {_spread(v.tail, m)}" for m, v in metrics if v.tail is not None]
    return "\n".join([*lines, "", *_notes(summary)])


def _notes(summary: Summary) -> list[str]:
    """Return what follows the published form: conventions, what is missing, medians, groups, worst cases."""
    lines = ["🔷 Notes:", "-" * 50]
    lines.append(f"Seeds ({len(summary.seeds)}): {', '.join(summary.seeds)}. Cases: {len(summary.cases)}.")
    lines.append(f"Std: over seeds, ddof={summary.ddof}. Averages: {summary.averaging}.")
    if summary.conventions:
        lines.append(f"Empty classes: {summary.conventions.get('empty_policy_meaning', 'not recorded')}.")
        lines.append(
            f"ASD variant: {summary.conventions.get('asd', 'not recorded')}; {summary.conventions.get('unit', '')}."
        )
    else:
        lines.append("Conventions: not recorded beside the result tables (made elsewhere).")
    if summary.organs:
        total = summary.organs["total"]
        lines.append(
            f"Organs over all seeds and cases: {total['detected']} detected, {total['misplaced']} misplaced,"
            f" {total['missed']} missed, {total['false']} false, {total['absent']} absent from both."
        )
        missed = {
            name: counts["missed"] for name, counts in summary.organs.items() if name != "total" and counts["missed"]
        }
        if missed:
            lines.append("Missed: " + ", ".join(f"{name} {count}" for name, count in missed.items()) + ".")
    if summary.tail_classes:
        lines.append(f"Tail classes: {', '.join(summary.tail_classes)}.")
    else:
        lines.append("Tail classes: none named; give the data set's description to get tail averages.")
    lines += [f"Missing: {text}." for text in summary.missing]
    lines += [f"{text}." for text in summary.notes]
    for values in summary.metrics.values():
        metric = values.metric
        shown = ", ".join(_number(value, metric) for value in values.quartiles)
        lines.append(f"{metric.title}, foreground per case: lower quartile, median, upper quartile {shown}.")
    for group in summary.groups:
        cells = [
            f"{summary.metrics[column].metric.title} {_spread(spread, summary.metrics[column].metric)}"
            for column, spread in group.foreground.items()
        ]
        lines.append(f"{group.column} = {group.value}: {group.cases} cases; {'; '.join(cells)}.")
    if summary.worst_cases:
        lines.append("Worst cases: " + ", ".join(f"{name} ({text})" for name, text in summary.worst_cases) + ".")
    return lines
