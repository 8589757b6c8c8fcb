"""A comparison in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from duomod.evaluation.comparison import Comparison
from duomod.evaluation.method_values import FOREGROUND, TAIL, MethodValues
from duomod.evaluation.settings import Significance
from duomod.evaluation.significance import (
    Ranking,
    smallest_p,
)


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def sentence(c: Comparison, alpha: float) -> str:
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


def comparison_text(
    comparisons: Sequence[Comparison],
    methods: Sequence[MethodValues],
    base: MethodValues,
    rankings: Mapping[tuple[str, str], Ranking],
    sure: Significance,
    notes: Sequence[str] = (),
) -> str:
    """All comparisons in sentences, the ranks, and at the end what is not in them."""
    seeds = ", ".join(f"{m.name} {next(iter(m.seeds.values())).shape[0]}" for m in methods)
    lines = [
        f"Comparison with {base.name}, paired by case ({len(base.cases)} cases; seeds averaged within: {seeds}).",
        "p: Wilcoxon signed-rank, two-sided, Holm-corrected within foreground and tail, and within the classes, of one"
        f" metric; level {sure.alpha:g}. CI: bootstrap, {sure.resamples} samples, cases drawn with replacement"
        " and seeds within them. Paired t and permutation tests and effect sizes are in comparison.csv.",
        "",
    ]
    for other in (method for method in methods if method is not base):
        overall = [c for c in comparisons if c.method == other.name and c.scope in (FOREGROUND, TAIL)]
        classes = [c for c in comparisons if c.method == other.name and c.scope not in (FOREGROUND, TAIL)]
        lines += [c.sentence for c in overall]
        clear = [c for c in classes if c.p_wilcoxon_holm <= sure.alpha]
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
    return "\n".join([*lines, *([""] if notes and rankings else []), *(f"{note}." for note in notes)]).rstrip()
