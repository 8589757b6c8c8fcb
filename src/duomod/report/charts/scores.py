"""Charts of scores: by class, frequent against rare organs, against organ volume, and seed by seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from duomod.datasets.case_names import case_id
from duomod.evaluation.aggregate import mean_defined
from duomod.evaluation.results import FloatArray
from duomod.report.assets.palette import METHODS
from duomod.report.charts.chart import Chart, all_rounded, axis, first_visible, marker, rounded
from duomod.report.sources.collect import Collection, Method

VOLUME_TICKS = [digit * 10**power for power in range(-3, 5) for digit in (1, 2, 5)]


def box_plots(collection: Collection) -> list[Chart]:
    """Per class: the values of the cases, averaged over seeds, one box per method. One chart per metric."""
    charts = []
    for column in collection.columns:
        metric = collection.metric(column)
        traces = []
        for index, method in enumerate(collection.methods):
            values = mean_defined(method.values[column], axis=0) * metric.scale
            cases, classes = np.nonzero(np.isfinite(values))
            traces.append(
                {
                    "type": "box",
                    "name": method.name,
                    "x": [collection.classes[c] for c in classes],
                    "y": all_rounded(values[cases, classes]),
                    "text": [case_id(method.cases[c]) for c in cases],
                    "marker": marker(index, size=4),
                    "line": {"width": 1.2},
                    "boxpoints": "outliers",
                    "hovertemplate": "%{text}: %{y}<extra>" + method.name + "</extra>",
                    "visible": first_visible(index),
                }
            )
        charts.append(
            Chart(
                key=f"box-{column}",
                title="Values by class",
                caption=f"{metric.title} of each case, averaged over seeds: median, quartiles and outliers;"
                " in each class the boxes stand in the legend's order."
                f" {metric.meaning[0].upper()}{metric.meaning[1:]}.",
                traces=traces,
                layout={
                    "boxmode": "group",
                    "xaxis": {"categoryorder": "array", "categoryarray": list(collection.classes), "tickangle": -35},
                    "yaxis": axis(metric.title, metric),
                },
                choice=metric.title,
                group="box",
                height=440,
            )
        )
    return charts


def head_mean(method: Method, column: str, tail: Sequence[str]) -> FloatArray:
    """Mean over the classes that are not in the tail, then cases: one value per seed."""
    classes = method.summary.classes[1:]
    return _scope_mean(method, column, [i for i, name in enumerate(classes) if name not in tail])


def tail_mean(method: Method, column: str, tail: Sequence[str]) -> FloatArray:
    """Mean over the tail classes, then cases: one value per seed."""
    classes = method.summary.classes[1:]
    return _scope_mean(method, column, [i for i, name in enumerate(classes) if name in tail])


def _scope_mean(method: Method, column: str, index: Sequence[int]) -> FloatArray:
    return mean_defined(mean_defined(method.values[column][:, :, list(index)], axis=2), axis=1)


def _mean_std(values: FloatArray) -> tuple[float | None, float | None]:
    defined = values[np.isfinite(values)]
    mean = rounded(defined.mean()) if defined.size else None
    return mean, rounded(defined.std(ddof=1)) if defined.size > 1 else None


def head_and_tail(collection: Collection) -> list[Chart]:
    """Dice of the frequent and of the rare classes side by side; none where no tail classes are named."""
    tail = collection.tail
    if not tail or len(tail) == len(collection.classes):
        return []
    traces = []
    scopes = (
        (f"head ({len(collection.classes) - len(tail)} classes)", head_mean, ""),
        (f"tail ({len(tail)} classes)", tail_mean, "/"),
    )
    for position, (name, mean_of, pattern) in enumerate(scopes):
        pairs = [_mean_std(100 * mean_of(method, "Dice", tail)) for method in collection.methods]
        traces.append(
            {
                "type": "bar",
                "name": name,
                "x": [method.name for method in collection.methods],
                "y": [mean for mean, _ in pairs],
                "error_y": {"type": "data", "array": [std for _, std in pairs], "visible": True, "thickness": 1.2},
                "marker": {"color": METHODS[position], "pattern": {"shape": pattern, "solidity": 0.4}},
                "hovertemplate": "%{x}: %{y:.1f} %<extra>" + name + "</extra>",
            }
        )
    layout = {"barmode": "group", "yaxis": axis("Dice (%)", collection.metric("Dice"))}
    caption = (
        f"Mean Dice over cases, then seeds; the whisker is the standard deviation over seeds. Tail: {', '.join(tail)}."
    )
    return [Chart("head-tail", "Frequent and rare organs", caption, traces, layout)]


def organ_volumes(collection: Collection) -> dict[tuple[str, int], float]:
    """True volume in ml by (file name, class), from the first seed that recorded it; organs of volume 0 left out."""
    found: dict[tuple[str, int], float] = {}
    for method in collection.methods:
        for seed in method.seeds:
            organs = seed.beside.organs
            if organs is not None:
                for case, label, ml in zip(organs["Filename"], organs["Class"], organs["True_ml"], strict=True):
                    if ml > 0:
                        found.setdefault((str(case), int(label)), float(ml))
    return found


def dice_against_volume(collection: Collection) -> list[Chart]:
    """One point per case and organ: its true volume and its Dice averaged over seeds."""
    volumes = organ_volumes(collection)
    if not volumes:
        return []
    traces = []
    for index, method in enumerate(collection.methods):
        dice = 100 * method.per_case
        points = [
            (volumes[case, label + 1], dice[row, label], f"{collection.classes[label]}, {case_id(case)}")
            for row, case in enumerate(method.cases)
            for label in range(dice.shape[1])
            if (case, label + 1) in volumes and np.isfinite(dice[row, label])
        ]
        traces.append(
            {
                "type": "scattergl" if len(points) > 3000 else "scatter",
                "mode": "markers",
                "name": method.name,
                "x": all_rounded([point[0] for point in points]),
                "y": all_rounded([point[1] for point in points]),
                "text": [point[2] for point in points],
                "marker": marker(index, size=6, opacity=0.65),
                "cliponaxis": False,
                "hovertemplate": "%{text}<br>%{x:.2f} ml, Dice %{y:.1f} %<extra>" + method.name + "</extra>",
                "visible": first_visible(index),
            }
        )
    layout = {
        "xaxis": axis("true volume (ml, logarithmic)", type="log", tickvals=VOLUME_TICKS),
        "yaxis": axis("Dice (%)", collection.metric("Dice")),
    }
    caption = "One mark per case and organ: small organs are on the left. Dice averaged over seeds."
    return [Chart("volume", "Dice against organ volume", caption, traces, layout, height=420)]


def seed_scatter(collection: Collection) -> list[Chart]:
    """Each seed's mean Dice: how much of a difference is the luck of training."""
    scopes: list[tuple[str, Callable[[Method], FloatArray], str]] = [
        ("foreground", lambda m: mean_defined(mean_defined(m.values["Dice"], axis=2), axis=1), "circle")
    ]
    if collection.tail:
        scopes.append(("tail", lambda m: tail_mean(m, "Dice", collection.tail), "diamond-open"))
    traces = []
    for position, (name, mean_of, symbol) in enumerate(scopes):
        x, y, text = [], [], []
        for method in collection.methods:
            values = all_rounded(100 * mean_of(method))
            x += [method.name] * len(values)
            y += values
            text += [seed.name for seed in method.seeds]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": x,
                "y": y,
                "text": text,
                "marker": {"color": METHODS[position], "symbol": symbol, "size": 9, "line": {"width": 1.5}},
                "hovertemplate": "%{x}, %{text}: %{y:.1f} %<extra>" + name + "</extra>",
            }
        )
    layout = {"yaxis": axis("Dice (%)", rangemode="tozero"), "xaxis": {"type": "category"}}
    caption = "One mark per seed: mean Dice over its cases. Differences smaller than the scatter say little."
    return [Chart("seed-scatter", "Mean Dice of each seed", caption, traces, layout)]
