"""Tables of several methods side by side: plain text, CSV, Markdown, LaTeX (booktabs) and XLSX."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from duomod.errors import InputError
from duomod.evaluation.aggregate import Spread, Summary, summarise
from duomod.evaluation.metrics import Metric
from duomod.evaluation.results import write_frame
from duomod.evaluation.seeds import find_results
from duomod.evaluation.settings import RESULT, AggregateOptions
from duomod.workspace import write_text


@dataclass(frozen=True)
class Row:
    """One line of a table: a class or an average, with one value per method (None or NaN: undefined)."""

    name: str
    metric: Metric
    spreads: tuple[Spread | None, ...]

    def places(self) -> tuple[int | None, int | None]:
        """Return the columns of the best and the second best method.

        None where the metric has no direction, where fewer than two methods have a value, and for places shared by
        values that look the same in print.
        """
        shown = {
            index: round(spread.mean * self.metric.scale, self.metric.decimals)
            for index, spread in enumerate(self.spreads)
            if spread is not None and math.isfinite(spread.mean)
        }
        if self.metric.higher_is_better is None or len(shown) < 2:
            return None, None
        values = sorted(set(shown.values()), reverse=self.metric.higher_is_better)

        def only(value: float) -> int | None:
            holders = [index for index, other in shown.items() if other == value]
            return holders[0] if len(holders) == 1 else None

        best = only(values[0])
        return best, only(values[1]) if best is not None and len(values) > 1 else None


@dataclass(frozen=True)
class MethodTable:
    """Methods as columns; the rows in sections, one per metric."""

    methods: tuple[str, ...]
    sections: tuple[tuple[str, tuple[Row, ...]], ...]
    missed: tuple[int, ...] | None
    note: str


def method_table(summaries: Sequence[Summary]) -> MethodTable:
    """Arrange the summaries of several methods as one table.

    Raises:
        InputError: no summary, or summaries of other classes, conventions or ddof.
    """
    if not summaries:
        raise InputError("a table needs the summary of at least one method")
    first = summaries[0]
    problems = []
    for other in summaries[1:]:
        for what in ("classes", "conventions", "ddof"):
            if getattr(other, what) != getattr(first, what):
                problems.append(f"{other.base}: other {what} than {first.base}; one table would mix different numbers")
    if problems:
        raise InputError(problems)
    sections = []
    for column in dict.fromkeys(column for summary in summaries for column in summary.metrics):
        parts = [summary.metrics.get(column) for summary in summaries]
        metric = next(part for part in parts if part is not None).metric

        rows = [
            Row(name, metric, tuple(part.per_class[index] if part else None for part in parts))
            for index, name in enumerate(first.classes[1:])
        ]
        rows.append(Row("foreground average", metric, tuple(part.foreground if part else None for part in parts)))
        if first.tail_classes:
            rows.append(Row("tail average", metric, tuple(part.tail if part else None for part in parts)))
        sections.append((metric.title, tuple(rows)))
    counts = {len(summary.seeds) for summary in summaries}
    seeds = str(counts.pop()) if len(counts) == 1 else ", ".join(f"{s.method} {len(s.seeds)}" for s in summaries)
    note = f"Mean ± std (ddof={first.ddof}) over seeds ({seeds}). "
    note += f"Tail: {', '.join(first.tail_classes)}." if first.tail_classes else "No tail classes are named."
    missed = tuple(s.organs["total"]["missed"] for s in summaries) if all(s.organs for s in summaries) else None
    return MethodTable(tuple(s.method for s in summaries), tuple(sections), missed, note)


def cell_text(spread: Spread | None, metric: Metric, sign: str = " ± ") -> str:
    """Return mean ± std in the metric's displayed unit; the mean alone where there is no std; n/a if undefined."""
    if spread is None or math.isnan(spread.mean):
        return "n/a"
    mean, std = (f"{value * metric.scale:.{metric.decimals}f}" for value in (spread.mean, spread.std))
    return mean if math.isnan(spread.std) else f"{mean}{sign}{std}"


def as_text(table: MethodTable) -> str:
    """Return the table as plain text in columns."""
    rows: list[list[str]] = []
    for title, section in table.sections:
        rows.append([title, *["" for _ in table.methods]])
        rows += [[f"  {row.name}", *[cell_text(spread, row.metric) for spread in row.spreads]] for row in section]
    if table.missed is not None:
        rows.append(["Organs missed (all seeds)", *map(str, table.missed)])
    head = ["Mean ± std", *table.methods]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return " | ".join(cells).rstrip()

    rule = "-" * (sum(widths) + 3 * (len(widths) - 1))
    return "\n".join([line(head), rule, *map(line, rows), rule, table.note])


def as_markdown(table: MethodTable) -> str:
    """Return the table in Markdown; the best value is bold, the second underlined (HTML ``<u>``)."""
    lines = [f"| | {' | '.join(table.methods)} |", "|---" + "|---:" * len(table.methods) + "|"]
    for title, section in table.sections:
        lines.append(f"| **{title}** |" + " |" * len(table.methods))
        for row in section:
            cells = _marked(row, " ± ", lambda cell: f"**{cell}**", lambda cell: f"<u>{cell}</u>")
            lines.append(f"| {row.name} | {' | '.join(cells)} |")
    if table.missed is not None:
        lines.append(f"| Organs missed (all seeds) | {' | '.join(map(str, table.missed))} |")
    return "\n".join([*lines, "", table.note])


def _marked(row: Row, sign: str, bold: Callable[[str], str], underline: Callable[[str], str]) -> list[str]:
    best, second = row.places()
    cells = []
    for index, spread in enumerate(row.spreads):
        cell = cell_text(spread, row.metric, sign)
        cells.append(bold(cell) if index == best else underline(cell) if index == second else cell)
    return cells


_LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: "\\" + character for character in "&%$#_{}"},
}


def latex_escaped(text: str) -> str:
    """Return text with LaTeX's special characters escaped."""
    return "".join(_LATEX_ESCAPES.get(character, character) for character in text)


def as_latex(table: MethodTable) -> str:
    r"""Return the table in LaTeX with booktabs rules: best value bold, second underlined, ``\pm`` std.

    It needs ``\usepackage{booktabs}`` and is a bare ``tabular``, to be put into a ``table`` with one's own caption.
    """
    width = len(table.methods) + 1
    lines = [f"% {table.note.replace('±', '+-')}", r"\begin{tabular}{l" + "r" * len(table.methods) + "}", r"\toprule"]
    lines.append(" & " + " & ".join(map(latex_escaped, table.methods)) + r" \\")
    for title, section in table.sections:
        lines += [r"\midrule", rf"\multicolumn{{{width}}}{{l}}{{\emph{{{latex_escaped(title)}}}}} \\"]
        for row in section:
            if row.name == "foreground average":
                lines.append(rf"\cmidrule(lr){{1-{width}}}")
            cells = _marked(row, r" \pm ", lambda cell: rf"\mathbf{{{cell}}}", lambda cell: rf"\underline{{{cell}}}")
            shown = [cell if cell == "n/a" else f"${cell}$" for cell in cells]
            lines.append(f"{latex_escaped(row.name)} & {' & '.join(shown)}" + r" \\")
    if table.missed is not None:
        lines += [r"\midrule", "Organs missed (all seeds) & " + " & ".join(map(str, table.missed)) + r" \\"]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def as_frame(table: MethodTable) -> pd.DataFrame:
    """Return the table as numbers in displayed units: metric, row, and mean and std of each method."""
    records = []
    for title, section in table.sections:
        for row in section:
            record: dict[str, object] = {"Metric": title, "Row": row.name}
            for method, spread in zip(table.methods, row.spreads, strict=True):
                record[f"{method} mean"] = None if spread is None else spread.mean * row.metric.scale
                record[f"{method} std"] = None if spread is None else spread.std * row.metric.scale
            records.append(record)
    if table.missed is not None:
        missed = {f"{method} mean": count for method, count in zip(table.methods, table.missed, strict=True)}
        records.append({"Metric": "count", "Row": "Organs missed (all seeds)", **missed})
    return pd.DataFrame(records)


_WRITERS = {".txt": as_text, ".md": as_markdown, ".tex": as_latex}


def write_tables(summaries: Sequence[Summary], outputs: Sequence[Path]) -> None:
    """Write one table of all methods to each path, in the format that its suffix names.

    Args:
        summaries: One per method, in the order of the columns.
        outputs: Paths ending with .txt, .md, .tex, .csv or .xlsx.

    Raises:
        InputError: another suffix, or summaries that do not belong in one table.
    """
    known = (*_WRITERS, ".csv", ".xlsx")
    wrong = [f"{path}: a table's name must end with {', '.join(known)}" for path in outputs if path.suffix not in known]
    if wrong:
        raise InputError(wrong)
    table = method_table(summaries)
    for path in outputs:
        if path.suffix in _WRITERS:
            write_text(path, _WRITERS[path.suffix](table) + "\n")
        else:
            write_frame(as_frame(table), path)


def summaries_of(bases: Sequence[Path], options: AggregateOptions | None = None) -> list[Summary]:
    """Summarise several methods from their folders, each with a folder per seed that holds ``result.csv``.

    Raises:
        InputError: a method has too few results, or one that cannot be read; all methods' problems together.
    """
    options = options or AggregateOptions()
    summaries: list[Summary] = []
    problems: list[str] = []
    for base in bases:
        try:
            tables, missing = find_results(base, options.seed_pattern, RESULT, options.min_seeds)
            summaries.append(summarise(base, tables, options=options, missing=missing)[0])
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return summaries


def side_by_side(bases: Sequence[Path]) -> str:
    """Return a plain text table of several methods: each class, foreground and tail, mean ± std over seeds.

    Args:
        bases: One folder per method, each with a folder per seed that holds ``result.csv``.

    Raises:
        InputError: a method has too few results.
    """
    return as_text(method_table(summaries_of(bases)))
