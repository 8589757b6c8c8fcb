"""The critical-difference plot: average ranks of many methods on one axis, bars over those that do not differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from duomod.evaluation.significance import Ranking
from duomod.workspace import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK, _BAR = "black", "0.45"


def critical_difference_figure(ranking: Ranking, title: str) -> Figure:
    """Draw the plot. Rank 1, the best, is on the left; it prints in grey.

    Args:
        ranking: From :func:`duomod.evaluation.significance.rank_methods`.
        title: What was ranked.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    k = len(ranking.methods)
    order = sorted(range(k), key=lambda i: ranking.average_ranks[i])
    groups = ranking.groups()
    left, right = order[: (k + 1) // 2], order[(k + 1) // 2 :][::-1]
    rows = max(len(left), len(right))
    height = 1.7 + 0.12 * len(groups) + 0.26 * rows
    figure = Figure(figsize=(7.0, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    bars_end = -0.25 - 0.2 * len(groups)
    axes.set_xlim(1 - 0.35 * (k - 1), k + 0.35 * (k - 1))
    axes.set_ylim(bars_end - 0.45 * rows - 0.2, 1.1)
    axes.axis("off")
    axes.plot([1, k], [0, 0], color=_INK, linewidth=1.2)
    for tick in range(1, k + 1):
        axes.plot([tick, tick], [0, 0.1], color=_INK, linewidth=1.2)
        axes.text(tick, 0.16, str(tick), ha="center", va="bottom", fontsize=9)
    difference = ranking.critical_difference
    axes.plot([1, 1 + difference], [0.62, 0.62], color=_INK, linewidth=1.2, marker="|", clip_on=False)
    axes.text(1, 0.7, f"critical difference {difference:.2f}", ha="left", va="bottom", fontsize=9)
    for level, members in enumerate(groups):
        ends = [ranking.average_ranks[members[0]] - 0.03, ranking.average_ranks[members[-1]] + 0.03]
        axes.plot(ends, [-0.2 - 0.2 * level] * 2, color=_BAR, linewidth=4, solid_capstyle="butt")
    edges = ((left, axes.get_xlim()[0], "left"), (right, axes.get_xlim()[1], "right"))
    for names, x_edge, side in edges:
        for row, index in enumerate(names):
            rank, y = ranking.average_ranks[index], bars_end - 0.45 * (row + 0.5)
            axes.plot([rank, rank, x_edge], [0, y, y], color=_INK, linewidth=0.8)
            axes.text(x_edge, y + 0.04, f"{ranking.methods[index]} ({rank:.2f})", ha=side, va="bottom", fontsize=9)
    axes.set_title(
        f"{title}: average rank over {ranking.cases} cases, Friedman p = {ranking.friedman_p:.2g}", fontsize=10
    )
    return figure


def write_critical_difference(ranking: Ranking, title: str, target: Path) -> None:
    """Write the plot atomically; the name's suffix (.svg, .png, .pdf) says in which format."""
    figure = critical_difference_figure(ranking, title)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, format=target.suffix.lstrip("."), dpi=150)
