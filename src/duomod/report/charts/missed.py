"""Charts of missed organs: which organ of which case was not found, and by how many seeds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from duomod.datasets.case_names import case_id
from duomod.report.charts.chart import Chart
from duomod.report.sources.collect import Collection, Method


def missed_matrices(collection: Collection) -> list[Chart]:
    """For each method: in how many seeds each organ of each case was missed."""
    charts: list[Chart] = []
    for index, method in enumerate(collection.methods):
        counts = missed_counts(method)
        if counts is None:
            continue
        recorded = sum(seed.beside.organs is not None for seed in method.seeds)
        seeds = f"{recorded} seeds" if recorded == len(method.seeds) else f"{recorded} seeds that recorded it"
        charts.append(
            Chart(
                key=f"missed-{index}",
                title="Missed organs by case",
                caption=f"{method.name}: number of its {seeds} in which an organ that is in the truth"
                " was not predicted at all. Blank: found by each of them.",
                traces=[
                    {
                        "type": "heatmap",
                        "x": list(collection.classes),
                        "y": [case_id(case) for case in method.cases],
                        "z": [[count or None for count in row] for row in counts.tolist()],
                        "zmin": 0,
                        "zmax": recorded,
                        "colorscale": [[0, "#FDE7D3"], [1, "#8A2D00"]],
                        "xgap": 1,
                        "ygap": 1,
                        "texttemplate": "%{z}",
                        "hovertemplate": "%{y}, %{x}: missed by %{z} seed(s)<extra></extra>",
                        "colorbar": {"title": {"text": "seeds"}, "thickness": 12},
                    }
                ],
                layout={
                    "xaxis": {"tickangle": -35, "type": "category"},
                    "yaxis": {"autorange": "reversed", "type": "category"},
                },
                choice=method.name,
                group="missed",
                height=max(300, 160 + 18 * len(method.cases)),
            )
        )
    return charts


def missed_counts(method: Method) -> NDArray[np.int64] | None:
    """(cases, classes): number of seeds that missed an organ; None where no seed recorded it."""
    recorded = [seed.beside.organs for seed in method.seeds if seed.beside.organs is not None]
    if not recorded:
        return None
    row = {case: index for index, case in enumerate(method.cases)}
    counts = np.zeros((len(method.cases), len(method.summary.classes) - 1), dtype=np.int64)
    for organs in recorded:
        missed = organs[organs["Status"] == "missed"]
        for case, label in zip(missed["Filename"], missed["Class"], strict=True):
            counts[row[str(case)], int(label) - 1] += 1
    return counts
