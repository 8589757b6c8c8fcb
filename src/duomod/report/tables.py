"""Tables of several methods side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from duomod.evaluation.aggregate import Spread, Summary, find_results, summarise
from duomod.evaluation.metrics import Metric


def _cell(spread: Spread | None, metric: Metric) -> str:
    if spread is None or spread.mean != spread.mean:
        return "n/a"
    return f"{spread.mean * metric.scale:.{metric.decimals}f} ± {spread.std * metric.scale:.{metric.decimals}f}"


def side_by_side(bases: Sequence[Path], *, dataset: str | None = None, min_seeds: int = 2, ddof: int = 1) -> str:
    """Return a plain text table of several methods: foreground, tail and each class, mean ± std over seeds.

    Args:
        bases: One folder per method, each with a folder per seed that holds ``result.csv``.
        dataset: Names the classes and the tail; default: as recorded by the evaluation.
        min_seeds: How many seeds each method needs.
        ddof: Of the standard deviation.

    Raises:
        InputError: a method has too few results.
    """
    summaries: dict[str, Summary] = {}
    for base in bases:
        tables, _ = find_results(base, "seed_*", "result", min_seeds)
        summaries[base.name], _ = summarise(base, tables, dataset=dataset, ddof=ddof)
    first = next(iter(summaries.values()))
    rows: list[list[str]] = []
    for column in first.metrics:
        metric = Metric(**first.metrics[column].metric)
        rows.append([metric.title, *["" for _ in summaries]])
        parts = [s.metrics[column] for s in summaries.values()]
        for index, name in enumerate(first.classes[1:]):
            rows.append([f"  {name}", *[_cell(p.per_class[index], metric) for p in parts]])
        rows.append(["  foreground average", *[_cell(p.foreground, metric) for p in parts]])
        if first.tail_classes:
            rows.append(["  tail average", *[_cell(p.tail, metric) for p in parts]])
    if all(s.organs for s in summaries.values()):
        rows.append(["Organs missed (all seeds)", *[str(s.organs["total"]["missed"]) for s in summaries.values()]])
    head = [f"Mean ± std, {len(first.seeds)} seeds", *summaries]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        return " | ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()

    rule = "-" * (sum(widths) + 3 * (len(widths) - 1))
    tail = f"Tail classes: {', '.join(first.tail_classes)}." if first.tail_classes else "No tail classes are named."
    return "\n".join([line(head), rule, *map(line, rows), rule, tail])
