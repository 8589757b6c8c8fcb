"""The report's charts, one file per subject: scores, training curves, missed organs."""

from __future__ import annotations

from collections.abc import Callable

from duomod.report.charts.chart import Chart
from duomod.report.charts.curves import imbalance_curves, learning_curves
from duomod.report.charts.missed import missed_matrices
from duomod.report.charts.scores import box_plots, dice_against_volume, head_and_tail, seed_scatter
from duomod.report.sources.collect import Collection


def all_charts(collection: Collection) -> dict[str, list[Chart]]:
    """Return the charts of each section that has any: section key -> charts."""
    sections: dict[str, Callable[[Collection], list[Chart]]] = {
        "classes": box_plots,
        "balance": lambda c: [*head_and_tail(c), *dice_against_volume(c)],
        "seeds": seed_scatter,
        "learning": learning_curves,
        "internals": imbalance_curves,
        "missed": missed_matrices,
    }
    found = {section: make(collection) for section, make in sections.items()}
    return {section: charts for section, charts in found.items() if charts}
