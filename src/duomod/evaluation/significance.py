"""Paired statistics over cases: tests, correction for many of them, intervals, effect sizes, ranks of many methods."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from duomod.evaluation.results import FloatArray

PERMUTATIONS = 9_999
#: Bootstrap samples handled at once; bounds the memory for many cases.
_CHUNK = 500


@dataclass(frozen=True)
class PairedTests:
    """Two-sided p values of the hypothesis that paired differences lie around zero; NaN where a test says nothing."""

    wilcoxon: float
    t_test: float
    permutation: float


def paired_tests(differences: FloatArray, seed: int = 0) -> PairedTests:
    """Test paired differences (n,), one per case.

    Wilcoxon's signed-rank test (zeros dropped), Student's paired t test, and a permutation test of the mean that flips
    signs: all 2^n ways where they are at most 10,000, else as many drawn with ``seed``.
    """
    n = differences.size
    if n < 2:
        return PairedTests(math.nan, math.nan, math.nan)
    if not np.any(differences):
        return PairedTests(1.0, 1.0, 1.0)
    with warnings.catch_warnings():
        # Equal differences have no variance: t is infinite and scipy warns about lost precision; p = 0 is what it says.
        warnings.simplefilter("ignore", RuntimeWarning)
        t_test = float(stats.ttest_1samp(differences, 0.0).pvalue)
    wilcoxon = float(stats.wilcoxon(differences).pvalue)
    permutation = stats.permutation_test(
        (differences, np.zeros(n)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=_CHUNK,
        rng=np.random.default_rng(seed),
    )
    return PairedTests(wilcoxon, t_test, float(permutation.pvalue))


def smallest_p(n: int) -> float:
    """Return the smallest two-sided p that Wilcoxon's test can give for ``n`` pairs: 2 / 2^n."""
    return min(1.0, 2.0 ** (1 - n))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p values: comparable with alpha directly, for any dependence. NaN stays, uncounted."""
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    order = [index for index in np.argsort(p) if np.isfinite(p[index])]
    running = 0.0
    for position, index in enumerate(order):
        running = max(running, (len(order) - position) * float(p[index]))
        adjusted[index] = min(1.0, running)
    return [float(value) for value in adjusted]


def cohens_dz(differences: FloatArray) -> float:
    """Return the mean of paired differences over their standard deviation (ddof=1); NaN where that is zero."""
    if differences.size < 2:
        return math.nan
    std, mean = float(differences.std(ddof=1)), float(differences.mean())
    # Equal differences leave a std of rounding errors, not of zero.
    return mean / std if std > 1e-12 * abs(mean) else math.nan


def rank_biserial(differences: FloatArray) -> float:
    """Return the matched-pairs rank-biserial correlation: share of rank sums in favour minus against (-1 to 1)."""
    nonzero = differences[differences != 0]
    if not nonzero.size:
        return 0.0
    ranks = stats.rankdata(np.abs(nonzero))
    return float((ranks[nonzero > 0].sum() - ranks[nonzero < 0].sum()) / ranks.sum())


def bootstrap_interval(
    method: FloatArray, baseline: FloatArray, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile interval of mean(method) - mean(baseline).

    Cases are drawn with replacement, the same for both methods; within each drawn case, each method's seeds are drawn
    with replacement. So both sources of chance, which patients and which training runs, widen the interval.

    Args:
        method: Values (seeds, cases); NaN where a seed lacks a case, not for all seeds of a case.
        baseline: Values (seeds, cases), same cases; the number of seeds may differ.
        level: Confidence level.
        resamples: Number of bootstrap samples.
        seed: Of the generator.
    """
    rng = np.random.default_rng(seed)
    cases = method.shape[1]
    means = []
    for begin in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - begin)
        drawn = rng.integers(0, cases, (count, cases))
        difference = _nested_mean(method, drawn, rng) - _nested_mean(baseline, drawn, rng)
        means.append(difference)
    tail = (1 - level) / 2 * 100
    low, high = np.percentile(np.concatenate(means), [tail, 100 - tail])
    return float(low), float(high)


def _nested_mean(
    values: FloatArray, drawn: np.ndarray[tuple[int, int], np.dtype[np.int64]], rng: np.random.Generator
) -> FloatArray:
    """Mean over drawn cases (samples, cases) of the mean over seeds drawn anew within each of them: (samples,)."""
    seeds = values.shape[0]
    if seeds == 1:
        result: FloatArray = values[0][drawn].mean(axis=1)
        return result
    picked = rng.integers(0, seeds, (seeds, *drawn.shape))
    sample = values[picked, drawn]
    known = np.isfinite(sample)
    counts = known.sum(axis=0)
    total = np.where(known, sample, 0.0).sum(axis=0)
    # Where only undefined seeds were drawn, the case's mean over all its seeds stands in.
    overall = np.nanmean(values, axis=0)[drawn]
    per_case = np.where(counts > 0, total / np.maximum(counts, 1), overall)
    result = per_case.mean(axis=1)
    return result


@dataclass(frozen=True)
class Ranking:
    """Average ranks of k methods over n cases (1 is best), Friedman's p, and Nemenyi's critical difference."""

    methods: tuple[str, ...]
    average_ranks: tuple[float, ...]
    friedman_p: float
    critical_difference: float
    cases: int
    alpha: float

    def groups(self) -> list[tuple[int, ...]]:
        """Return the largest sets of methods (indices, best first) whose ranks differ by less than that difference."""
        order = sorted(range(len(self.methods)), key=lambda i: self.average_ranks[i])
        found: list[tuple[int, ...]] = []
        for start, first in enumerate(order):
            limit = self.average_ranks[first] + self.critical_difference
            members = tuple(i for i in order[start:] if self.average_ranks[i] < limit)
            if len(members) > 1 and not any(set(members) <= set(other) for other in found):
                found.append(members)
        return found


def rank_methods(methods: Sequence[str], values: FloatArray, *, higher_is_better: bool, alpha: float = 0.05) -> Ranking:
    """Rank methods on every case and compare the average ranks (Friedman, Nemenyi; Demsar 2006).

    Args:
        methods: At least three names.
        values: (cases, methods), all defined.
        higher_is_better: Direction of the metric.
        alpha: Level of the critical difference.
    """
    cases, k = values.shape
    ranks = stats.rankdata(-values if higher_is_better else values, axis=1)
    # Friedman's statistic is undefined where all methods tie on every case; nothing differs then.
    p = 1.0 if np.ptp(ranks, axis=1).max() == 0 else float(stats.friedmanchisquare(*ranks.T).pvalue)
    quantile = float(stats.studentized_range.ppf(1 - alpha, k, np.inf)) / math.sqrt(2)
    return Ranking(
        methods=tuple(methods),
        average_ranks=tuple(float(rank) for rank in ranks.mean(axis=0)),
        friedman_p=p,
        critical_difference=quantile * math.sqrt(k * (k + 1) / (6 * cases)),
        cases=cases,
        alpha=alpha,
    )
