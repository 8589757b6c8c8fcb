"""Methods against a baseline, paired by case: tests, corrected p values, intervals, effect sizes, plain sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from duomod.console import out, say
from duomod.datasets.importers import numbered_classes
from duomod.datasets.spec import load_spec
from duomod.errors import InputError, nearest_name
from duomod.evaluation.aggregate import Number, mean_defined, sources_path
from duomod.evaluation.critical_difference import write_critical_difference
from duomod.evaluation.metrics import Metric
from duomod.evaluation.results import FloatArray, ResultTable, read_result, write_frame
from duomod.evaluation.significance import (
    Ranking,
    bootstrap_interval,
    cohens_dz,
    holm,
    paired_tests,
    rank_biserial,
    rank_methods,
    smallest_p,
)
from duomod.extras import require_report_packages
from duomod.workspace import read_json, write_text

FOREGROUND, TAIL = "foreground", "tail"
_TESTS = ("wilcoxon", "t_test", "permutation")


@dataclass(frozen=True)
class MethodValues:
    """One method's per-case values.

    Attributes:
        name: The method.
        table: The aggregated table, for messages and metric descriptions.
        cases: File names, sorted.
        seeds: Metric column -> (seeds, cases, classes); one "seed" when only seed averages are known.
        conventions: How the values were computed; empty when not recorded.
        classes: Class names, background first.
        tail_classes: Names of the tail classes.
    """

    name: str
    table: ResultTable
    cases: tuple[str, ...]
    seeds: dict[str, FloatArray]
    conventions: Mapping[str, Any]
    classes: tuple[str, ...]
    tail_classes: tuple[str, ...]


class Comparison(BaseModel):
    """One method against the baseline on one metric in one scope (foreground, tail, or a class).

    Means, ``difference`` (method minus baseline) and the interval are in the metric's displayed unit (per cent, mm).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    baseline: str
    metric: str
    unit: str
    higher_is_better: bool
    scope: str
    n: int
    mean_method: Number
    mean_baseline: Number
    difference: Number
    ci_low: Number
    ci_high: Number
    p_wilcoxon: Number
    p_t_test: Number
    p_permutation: Number
    p_wilcoxon_holm: Number = math.nan
    p_t_test_holm: Number = math.nan
    p_permutation_holm: Number = math.nan
    cohens_dz: Number
    rank_biserial: Number
    family: int = 1
    sentence: str = ""


def read_method(aggregated: Path, dataset: str | None = None) -> MethodValues:
    """Read an aggregated table and, where its ``_sources.json`` still leads to them, the tables of its seeds.

    Raises:
        InputError: the table, or a table it was made from, cannot be read.
    """
    table = read_result(aggregated)
    cases = tuple(sorted(table.cases))
    source = sources_path(aggregated)
    facts: dict[str, Any] = read_json(source) if source.is_file() else {}
    name = str(facts.get("method") or aggregated.stem.removesuffix("_aggregated_metrics"))
    paths = [aggregated.parent / path for path in facts.get("seeds", {}).values()]
    gone = [str(path) for path in paths if not path.is_file()]
    if not paths or gone:
        why = f"{', '.join(gone)} not found" if gone else f"no {source.name} beside it"
        say(
            f"{aggregated}: single seeds are unknown ({why}); the intervals of {name} leave out the chance of training."
        )
        seeds = {column: table.of_cases(cases, column)[None] for column in table.values}
    else:
        tables = [read_result(path) for path in paths]
        changed = [str(t.path) for t in tables if set(t.values) < set(table.values) or not set(t.cases) <= set(cases)]
        if changed:
            raise InputError([f"{path}: has changed since {aggregated} was made; aggregate again" for path in changed])
        seeds = {column: np.stack([t.of_cases(cases, column) for t in tables]) for column in table.values}
    classes = tuple(facts.get("classes") or numbered_classes(table.num_foreground + 1))
    tail = tuple(facts.get("tail_classes", ()))
    if dataset is not None:
        spec = load_spec(dataset)
        classes, tail = spec.classes, spec.tail_classes
    if len(classes) != table.num_foreground + 1:
        raise InputError(f"{aggregated}: has {table.num_foreground} organs, but {len(classes) - 1} are named")
    return MethodValues(name, table, cases, seeds, facts.get("conventions", {}), classes, tail)


def _check_comparable(methods: Sequence[MethodValues], baseline: str) -> None:
    names = [method.name for method in methods]
    problems = [
        f"two tables are of a method called '{name}'; rename one file" for name in {*names} if names.count(name) > 1
    ]
    if len(methods) < 2:
        problems.append("a comparison needs at least two aggregated tables")
    if baseline not in names:
        problems.append(
            f"the baseline '{baseline}' is none of them.{nearest_name(baseline, names)} Given: {', '.join(names)}."
        )
    first = methods[0]
    for other in methods[1:]:
        lacking, extra = set(first.cases) - set(other.cases), set(other.cases) - set(first.cases)
        if lacking or extra:
            parts = [f"without {', '.join(sorted(lacking))}"] if lacking else []
            parts += [f"with {', '.join(sorted(extra))} besides"] if extra else []
            problems.append(
                f"{other.table.path}: other cases than {first.table.path} ({'; '.join(parts)}); paired tests need the"
                " same cases in both: evaluate both on the same list"
            )
        if other.classes != first.classes:
            problems.append(f"{other.table.path}: other classes than {first.table.path}")
        if set(other.seeds) != set(first.seeds):
            problems.append(f"{other.table.path}: has {', '.join(other.seeds)}, not {', '.join(first.seeds)}")
        if first.conventions and other.conventions and first.conventions != other.conventions:
            differing = [k for k, v in first.conventions.items() if other.conventions.get(k) != v]
            problems.append(f"{other.table.path}: other conventions than {first.table.path} ({', '.join(differing)})")
    if problems:
        raise InputError(problems)


def scoped_values(method: MethodValues, column: str, scope: str) -> FloatArray:
    """Return (seeds, cases): a class's values, or the mean over the foreground's or the tail's defined classes."""
    values = method.seeds[column]
    if scope == FOREGROUND:
        return mean_defined(values, axis=2)
    if scope == TAIL:
        return mean_defined(values[:, :, [method.classes.index(name) - 1 for name in method.tail_classes]], axis=2)
    result: FloatArray = values[:, :, method.classes.index(scope) - 1]
    return result


def _compare(
    method: MethodValues, baseline: MethodValues, metric: Metric, scope: str, resamples: int, seed: int
) -> Comparison:
    a, b = (scoped_values(m, metric.column, scope) * metric.scale for m in (method, baseline))
    mean_a, mean_b = mean_defined(a, axis=0), mean_defined(b, axis=0)
    both = np.isfinite(mean_a) & np.isfinite(mean_b)
    differences = mean_a[both] - mean_b[both]
    n = int(both.sum())
    low = high = math.nan
    if n >= 2:
        low, high = bootstrap_interval(a[:, both], b[:, both], resamples=resamples, seed=seed)
    tests = paired_tests(differences, seed)
    return Comparison(
        method=method.name,
        baseline=baseline.name,
        metric=metric.column,
        unit="points" if metric.kind == "overlap" else metric.title.partition("(")[2].rstrip(")"),
        higher_is_better=bool(metric.higher_is_better),
        scope=scope,
        n=n,
        mean_method=float(mean_a[both].mean()) if n else math.nan,
        mean_baseline=float(mean_b[both].mean()) if n else math.nan,
        difference=float(differences.mean()) if n else math.nan,
        ci_low=low,
        ci_high=high,
        p_wilcoxon=tests.wilcoxon,
        p_t_test=tests.t_test,
        p_permutation=tests.permutation,
        cohens_dz=cohens_dz(differences),
        rank_biserial=rank_biserial(differences),
    )


def _corrected(family: Sequence[Comparison], alpha: float) -> list[Comparison]:
    """Holm's correction over a family of comparisons, test by test; and the sentence, which needs it."""
    adjusted = {test: holm([getattr(c, f"p_{test}") for c in family]) for test in _TESTS}
    tested = sum(math.isfinite(comparison.p_wilcoxon) for comparison in family)
    result = []
    for index, comparison in enumerate(family):
        update: dict[str, object] = {f"p_{test}_holm": adjusted[test][index] for test in _TESTS}
        corrected = comparison.model_copy(update={**update, "family": tested})
        result.append(corrected.model_copy(update={"sentence": _sentence(corrected, alpha)}))
    return result


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _sentence(c: Comparison, alpha: float) -> str:
    """Say in words what one comparison shows."""
    what = f"{c.scope} {c.metric}"
    if c.n < 2:
        return f"{c.method} against {c.baseline} on {what}: nothing can be said, {c.n} case(s) have a value in both."
    digits = 1 if c.unit == "points" else 2
    p = c.p_wilcoxon_holm
    facts = f"{_p(p)} (Wilcoxon, Holm over {c.family}), n = {c.n}"
    if p <= alpha:
        word = "better" if (c.difference > 0) == c.higher_is_better else "worse"
        # "better by 3 mm": the amount and its interval are positive when they agree with the word.
        low, high = (c.ci_low, c.ci_high) if c.difference > 0 else (-c.ci_high, -c.ci_low)
        return (
            f"{c.method} is {word} than {c.baseline} on {what} by {abs(c.difference):.{digits}f} {c.unit},"
            f" 95 % CI [{low:.{digits}f}, {high:.{digits}f}], {facts}."
        )
    text = (
        f"No difference shown between {c.method} and {c.baseline} on {what}: {c.difference:+.{digits}f} {c.unit},"
        f" 95 % CI [{c.ci_low:+.{digits}f}, {c.ci_high:+.{digits}f}], {facts}."
    )
    least = smallest_p(c.n) * c.family
    if least > alpha:
        text += (
            f" n = {c.n} is too small to show one: the smallest p possible is {min(1.0, least):.2g}; this says nothing"
            " about the methods being equal."
        )
    return text


def _rankings(
    methods: Sequence[MethodValues], metrics: Sequence[Metric], scopes: Sequence[str], alpha: float
) -> dict[tuple[str, str], Ranking]:
    rankings = {}
    for metric in metrics:
        for scope in scopes:
            values = np.stack([mean_defined(scoped_values(m, metric.column, scope), axis=0) for m in methods], axis=1)
            complete = values[np.isfinite(values).all(axis=1)]
            if len(complete) >= 2:
                rankings[metric.column, scope] = rank_methods(
                    [m.name for m in methods], complete, higher_is_better=bool(metric.higher_is_better), alpha=alpha
                )
    return rankings


def compare_methods(
    methods: Sequence[MethodValues],
    baseline: str,
    *,
    metrics: Sequence[str] | None = None,
    per_class: bool = True,
    alpha: float = 0.05,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[list[Comparison], dict[tuple[str, str], Ranking]]:
    """Compare every method with the baseline, and rank them all when there are three or more.

    Args:
        methods: Their values per seed, case and class.
        baseline: Name of the method the others are compared with.
        metrics: Column prefixes such as ``Dice``; default: all with a direction.
        per_class: Compare class by class too, not only foreground and tail.
        alpha: Level of significance.
        resamples: Bootstrap samples.
        seed: Of bootstrap and permutations.

    Returns:
        The comparisons, and rankings by (metric column, scope).

    Raises:
        InputError: lists all that makes the methods incomparable: other cases, classes, metrics or conventions.
    """
    if not 0 < alpha < 1 or resamples < 100:
        raise InputError("alpha must lie between 0 and 1, and there must be at least 100 bootstrap samples")
    _check_comparable(methods, baseline)
    base = next(method for method in methods if method.name == baseline)
    others = [method for method in methods if method is not base]
    available = [base.table.metric(column) for column in base.seeds]
    unknown = [name for name in metrics or () if name not in base.seeds]
    if unknown:
        raise InputError(
            [f"no column {n}_Class1.{nearest_name(n, base.seeds)} There are: {', '.join(base.seeds)}." for n in unknown]
        )
    chosen = [m for m in available if m.higher_is_better is not None and (metrics is None or m.column in metrics)]
    scopes = [FOREGROUND, *([TAIL] if base.tail_classes else [])]
    comparisons: list[Comparison] = []
    for metric in chosen:
        for family in (scopes, base.classes[1:] if per_class else ()):
            found = [_compare(other, base, metric, scope, resamples, seed) for other in others for scope in family]
            comparisons += _corrected(found, alpha)
    return comparisons, _rankings(methods, chosen, scopes, alpha) if len(methods) >= 3 else {}


def run_compare(
    aggregated_csvs: Sequence[Path],
    *,
    baseline: str,
    output: Path,
    metrics: Sequence[str] | None = None,
    dataset: str | None = None,
    alpha: float = 0.05,
    resamples: int = 10_000,
    seed: int = 0,
) -> Path:
    """Compare methods with a baseline, paired by case, with seeds averaged within the case.

    Writes into ``output``: ``comparison.txt`` (plain sentences), ``comparison.csv`` and ``comparison.json`` (all
    numbers) and, for three or more methods, ``critical_difference_<metric>_<scope>.svg`` and ``.png``.

    Args:
        aggregated_csvs: Tables of ``duomod aggregate``, one per method.
        baseline: Name of the method the others are compared with.
        output: Folder.
        metrics: Column prefixes such as ``Dice``; default: all with a direction.
        dataset: Names the classes and the tail; default: as recorded.
        alpha: Level of significance.
        resamples: Bootstrap samples.
        seed: Of bootstrap and permutations.

    Returns:
        The path of ``comparison.txt``.

    Raises:
        InputError: lists all that makes the tables incomparable: other cases, classes, metrics or conventions.
    """
    if len(aggregated_csvs) > 2:
        require_report_packages("a comparison of more than two methods")
    methods = [read_method(Path(path), dataset) for path in aggregated_csvs]
    comparisons, rankings = compare_methods(
        methods, baseline, metrics=metrics, alpha=alpha, resamples=resamples, seed=seed
    )
    base = next(method for method in methods if method.name == baseline)
    output = Path(output)
    for (column, scope), ranking in rankings.items():
        for suffix in ("svg", "png"):
            target = output / f"critical_difference_{column}_{scope}.{suffix}"
            write_critical_difference(ranking, f"{scope} {column}", target)
    text = _text(comparisons, methods, base, rankings, alpha, resamples)
    rows = [comparison.model_dump() for comparison in comparisons]
    write_frame(pd.DataFrame(rows), output / "comparison.csv")
    content = ComparisonFile(
        baseline=baseline, alpha=alpha, resamples=resamples, seed=seed, comparisons=tuple(comparisons)
    )
    write_text(output / "comparison.json", content.model_dump_json(indent=1) + "\n")
    write_text(output / "comparison.txt", text + "\n")
    out.print(text, markup=False)
    return output / "comparison.txt"


class ComparisonFile(BaseModel):
    """The content of ``comparison.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    baseline: str
    alpha: float
    resamples: int
    seed: int
    comparisons: tuple[Comparison, ...]


def _text(
    comparisons: Sequence[Comparison],
    methods: Sequence[MethodValues],
    base: MethodValues,
    rankings: Mapping[tuple[str, str], Ranking],
    alpha: float,
    resamples: int,
) -> str:
    seeds = ", ".join(f"{m.name} {next(iter(m.seeds.values())).shape[0]}" for m in methods)
    lines = [
        f"Comparison with {base.name}, paired by case ({len(base.cases)} cases; seeds averaged within: {seeds}).",
        "p: Wilcoxon signed-rank, two-sided, Holm-corrected within foreground and tail, and within the classes, of one"
        f" metric; level {alpha:g}. CI: bootstrap, {resamples} samples, cases drawn with replacement and seeds within"
        " them. Paired t and permutation tests and effect sizes are in comparison.csv.",
        "",
    ]
    for other in (method for method in methods if method is not base):
        overall = [c for c in comparisons if c.method == other.name and c.scope in (FOREGROUND, TAIL)]
        classes = [c for c in comparisons if c.method == other.name and c.scope not in (FOREGROUND, TAIL)]
        lines += [c.sentence for c in overall]
        clear = [c for c in classes if c.p_wilcoxon_holm <= alpha]
        lines += [f"  {c.sentence}" for c in clear]
        if classes:
            lines.append(f"  {len(classes) - len(clear)} of {len(classes)} class comparisons show no difference.")
        lines.append("")
    for (column, scope), ranking in rankings.items():
        order = sorted(zip(ranking.average_ranks, ranking.methods, strict=True))
        ranks = ", ".join(f"{name} {rank:.2f}" for rank, name in order)
        lines.append(
            f"Average ranks on {scope} {column}: {ranks}; Friedman {_p(ranking.friedman_p)}, critical difference"
            f" (Nemenyi) {ranking.critical_difference:.2f}, n = {ranking.cases}."
        )
    return "\n".join(lines).rstrip()
