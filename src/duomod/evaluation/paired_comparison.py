"""Methods against a baseline, paired by case: tests, corrected p values, intervals, effect sizes, ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from duomod.errors import InputError, nearest_name
from duomod.evaluation.aggregate import mean_defined
from duomod.evaluation.comparison import Comparison
from duomod.evaluation.comparison_text import sentence
from duomod.evaluation.method_values import FOREGROUND, TAIL, MethodValues, check_comparable, scoped_values
from duomod.evaluation.metrics import Metric
from duomod.evaluation.settings import Significance
from duomod.evaluation.significance import (
    Ranking,
    bootstrap_interval,
    cohens_dz,
    holm,
    paired_tests,
    rank_biserial,
    rank_methods,
)

_TESTS = ("wilcoxon", "t_test", "permutation")


def _compare(
    method: MethodValues, baseline: MethodValues, metric: Metric, scope: str, sure: Significance
) -> Comparison:
    a, b = (scoped_values(m, metric.column, scope) * metric.scale for m in (method, baseline))
    mean_a, mean_b = mean_defined(a, axis=0), mean_defined(b, axis=0)
    both = np.isfinite(mean_a) & np.isfinite(mean_b)
    differences = mean_a[both] - mean_b[both]
    n = int(both.sum())
    low = high = math.nan
    if n >= 2:
        low, high = bootstrap_interval(a[:, both], b[:, both], resamples=sure.resamples, seed=sure.seed)
    tests = paired_tests(differences, sure.seed)
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
        result.append(corrected.model_copy(update={"sentence": sentence(corrected, alpha)}))
    return result


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
    significance: Significance | None = None,
) -> tuple[list[Comparison], dict[tuple[str, str], Ranking]]:
    """Compare every method with the baseline, and rank them all when there are three or more.

    Args:
        methods: Their values per seed, case and class.
        baseline: Name of the method the others are compared with.
        metrics: Column prefixes such as ``Dice``; default: all with a direction.
        per_class: Compare class by class too, not only foreground and tail.
        significance: How sure a difference must be, and the seed of bootstrap and permutations.

    Returns:
        The comparisons, and rankings by (metric column, scope).

    Raises:
        InputError: lists all that makes the methods incomparable: other cases, classes, metrics or conventions.
    """
    check_comparable(methods, baseline)
    sure = significance or Significance()
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
            found = [_compare(other, base, metric, scope, sure) for other in others for scope in family]
            comparisons += _corrected(found, sure.alpha)
    return comparisons, _rankings(methods, chosen, scopes, sure.alpha) if len(methods) >= 3 else {}
