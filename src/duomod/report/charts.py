"""The report's charts as plain Plotly figures (``data`` and ``layout``); the page adds fonts and light or dark colours.

Every method has one colour, one marker and one dash in all charts, so that they can be told apart in grey too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from duomod.datasets.spec import without_ending
from duomod.evaluation.aggregate import mean_defined
from duomod.evaluation.metrics import Metric
from duomod.evaluation.results import FloatArray
from duomod.report.collect import Collection, Method
from duomod.report.palette import METHODS, method_colour, method_dash, method_marker

Trace = dict[str, Any]

VOLUME_TICKS = [digit * 10**power for power in range(-3, 5) for digit in (1, 2, 5)]

#: A curve is thinned to this many points; more cannot be seen.
MAX_POINTS = 600
#: Above this many methods, the rest of the box plots are switched off at first (their legend entry switches them on).
SHOWN_METHODS = 8


@dataclass(frozen=True)
class Chart:
    """One chart of the page.

    Attributes:
        key: Identifier, unique on the page.
        title: Above the chart.
        caption: What is drawn, in words.
        traces: Plotly's ``data``.
        layout: Plotly's ``layout`` without fonts and colours.
        choice: Name in that list.
        height: Pixels.
        group: Charts of one group stand in one place, with a list to choose from; empty for a chart on its own.
    """

    key: str
    title: str
    caption: str
    traces: list[Trace]
    layout: dict[str, Any]
    choice: str = ""
    height: int = 380
    group: str = ""

    def figure(self) -> dict[str, Any]:
        """Return what the page hands to Plotly."""
        return {"data": self.traces, "layout": self.layout, "height": self.height}


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


def _number(value: float) -> float | None:
    """A value as JSON has it: rounded, None where it is undefined."""
    return round(float(value), 5) if np.isfinite(value) else None


def _numbers(values: FloatArray | Sequence[float]) -> list[float | None]:
    return [_number(value) for value in np.asarray(values, dtype=np.float64)]


def _axis(title: str, metric: Metric | None = None, **more: Any) -> dict[str, Any]:
    bounds = {"range": [0, 100]} if metric is not None and metric.kind == "overlap" else {}
    return {"title": {"text": title}, **bounds, **more}


def _marker(index: int, **more: Any) -> dict[str, Any]:
    return {"color": method_colour(index), "symbol": method_marker(index), **more}


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
                    "y": _numbers(values[cases, classes]),
                    "text": [without_ending(method.cases[c]) for c in cases],
                    "marker": _marker(index, size=4),
                    "line": {"width": 1.2},
                    "boxpoints": "outliers",
                    "hovertemplate": "%{text}: %{y}<extra>" + method.name + "</extra>",
                    "visible": True if index < SHOWN_METHODS else "legendonly",
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
                    "yaxis": _axis(metric.title, metric),
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
    mean = _number(defined.mean()) if defined.size else None
    return mean, _number(defined.std(ddof=1)) if defined.size > 1 else None


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
    layout = {"barmode": "group", "yaxis": _axis("Dice (%)", collection.metric("Dice"))}
    caption = (
        f"Mean Dice over cases, then seeds; the whisker is the standard deviation over seeds. Tail: {', '.join(tail)}."
    )
    return [Chart("head-tail", "Frequent and rare organs", caption, traces, layout)]


def organ_volumes(collection: Collection) -> dict[tuple[str, int], float]:
    """True volume in ml by (file name, class), from the first seed that recorded it; organs of volume 0 left out."""
    found: dict[tuple[str, int], float] = {}
    for method in collection.methods:
        for seed in method.seeds:
            if seed.organs is not None:
                for case, label, ml in zip(
                    seed.organs["Filename"], seed.organs["Class"], seed.organs["True_ml"], strict=True
                ):
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
            (volumes[case, label + 1], dice[row, label], f"{collection.classes[label]}, {without_ending(case)}")
            for row, case in enumerate(method.cases)
            for label in range(dice.shape[1])
            if (case, label + 1) in volumes and np.isfinite(dice[row, label])
        ]
        traces.append(
            {
                "type": "scattergl" if len(points) > 3000 else "scatter",
                "mode": "markers",
                "name": method.name,
                "x": _numbers([point[0] for point in points]),
                "y": _numbers([point[1] for point in points]),
                "text": [point[2] for point in points],
                "marker": _marker(index, size=6, opacity=0.65),
                "cliponaxis": False,
                "hovertemplate": "%{text}<br>%{x:.2f} ml, Dice %{y:.1f} %<extra>" + method.name + "</extra>",
                "visible": True if index < SHOWN_METHODS else "legendonly",
            }
        )
    layout = {
        "xaxis": _axis("true volume (ml, logarithmic)", type="log", tickvals=VOLUME_TICKS),
        "yaxis": _axis("Dice (%)", collection.metric("Dice")),
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
            values = _numbers(100 * mean_of(method))
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
    layout = {"yaxis": _axis("Dice (%)", rangemode="tozero"), "xaxis": {"type": "category"}}
    caption = "One mark per seed: mean Dice over its cases. Differences smaller than the scatter say little."
    return [Chart("seed-scatter", "Mean Dice of each seed", caption, traces, layout)]


def _thinned(steps: Sequence[int], values: Sequence[float]) -> tuple[list[int], list[float]]:
    """A curve of at most MAX_POINTS points: means of neighbours, so that no peak is picked or lost by chance."""
    if len(steps) <= MAX_POINTS:
        return list(steps), [round(value, 5) for value in values]
    parts = np.array_split(np.arange(len(steps)), MAX_POINTS)
    return (
        [int(steps[part[-1]]) for part in parts],
        [round(float(np.mean([values[i] for i in part])), 5) for part in parts],
    )


def _curves(collection: Collection, name: str, scale: float = 1.0, markers: bool = False) -> list[Trace]:
    """One line per seed of each method that logged a value; one legend entry per method."""
    traces: list[Trace] = []
    for index, method in enumerate(collection.methods):
        first = True
        for seed in method.seeds:
            if name not in seed.curves:
                continue
            steps, values = _thinned(*seed.curves[name])
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers" if markers else "lines",
                    "name": method.name,
                    "legendgroup": method.name,
                    "showlegend": first,
                    "x": steps,
                    "y": [round(scale * value, 5) for value in values],
                    "line": {"color": method_colour(index), "dash": method_dash(index), "width": 1.6},
                    "marker": _marker(index, size=6),
                    "cliponaxis": False,
                    "hovertemplate": "step %{x}: %{y:.4g}<extra>" + f"{method.name}, {seed.name}</extra>",
                }
            )
            first = False
    return traces


def learning_curves(collection: Collection) -> list[Chart]:
    """Training loss and validation Dice over steps."""
    charts = []
    loss = _curves(collection, "loss")
    if loss:
        layout = {"xaxis": _axis("step", rangemode="tozero"), "yaxis": _axis("training loss")}
        caption = (
            "Mean of the steps between two log lines; one line per seed. Losses of different methods are sums of"
            " different terms: compare their course, not their height."
        )
        charts.append(Chart("loss", "Training loss", caption, loss, layout))
    dice = _curves(collection, "val_dice", scale=100, markers=True)
    if dice:
        layout = {
            "xaxis": _axis("step", rangemode="tozero"),
            "yaxis": _axis("validation Dice (%)", collection.metric("Dice")),
        }
        caption = "Mean foreground Dice on the validation cases, which are neither trained on nor reported above."
        charts.append(Chart("validation", "Validation Dice", caption, dice, layout))
    return charts


def imbalance_curves(collection: Collection) -> list[Chart]:
    """RLM class weights (mean over seeds, one line per class) and DAFR gain over time, of the methods that log them."""
    charts: list[Chart] = []
    prefix = "rlm_weight/"
    weighted = [m for m in collection.methods if any(k.startswith(prefix) for s in m.seeds for k in s.curves)]
    for method in weighted:
        names = list(dict.fromkeys(k for s in method.seeds for k in s.curves if k.startswith(prefix)))
        traces: list[Trace] = []
        for index, name in enumerate(names):
            curves = [seed.curves[name] for seed in method.seeds if name in seed.curves]
            length = min(len(steps) for steps, _ in curves)
            mean = np.mean([values[:length] for _, values in curves], axis=0)
            steps, values = _thinned(curves[0][0][:length], mean.tolist())
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": name.removeprefix(prefix),
                    "x": steps,
                    "y": values,
                    "line": {"color": method_colour(index), "dash": method_dash(index // len(METHODS)), "width": 1.6},
                }
            )
        charts.append(
            Chart(
                key=f"rlm-{len(charts)}",
                title="RLM weights",
                caption=f"{method.name}: cross-entropy weight of each class over training, mean of its seeds.",
                traces=traces,
                layout={"xaxis": _axis("step", rangemode="tozero"), "yaxis": _axis("class weight")},
                choice=method.name,
                group="rlm",
                height=440,
            )
        )
    gain = _curves(collection, "dafr_gain")
    if gain:
        layout = {"xaxis": _axis("step", rangemode="tozero"), "yaxis": _axis("mean gain")}
        caption = "Mean over voxels and both networks of DAFR's feature gain; 1 means untouched."
        charts.append(Chart("dafr", "DAFR gain", caption, gain, layout))
    return charts


def missed_matrices(collection: Collection) -> list[Chart]:
    """For each method: in how many seeds each organ of each case was missed."""
    charts: list[Chart] = []
    for index, method in enumerate(collection.methods):
        counts = missed_counts(method)
        if counts is None:
            continue
        charts.append(
            Chart(
                key=f"missed-{index}",
                title="Missed organs by case",
                caption=f"{method.name}: number of its {len(method.seeds)} seeds in which an organ that is in the truth"
                " was not predicted at all. Blank: found by every seed.",
                traces=[
                    {
                        "type": "heatmap",
                        "x": list(collection.classes),
                        "y": [without_ending(case) for case in method.cases],
                        "z": [[count or None for count in row] for row in counts.tolist()],
                        "zmin": 0,
                        "zmax": len(method.seeds),
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


def missed_counts(method: Method) -> np.ndarray[Any, np.dtype[np.int64]] | None:
    """(cases, classes): number of seeds that missed an organ; None where no seed recorded it."""
    recorded = [seed.organs for seed in method.seeds if seed.organs is not None]
    if not recorded:
        return None
    row = {case: index for index, case in enumerate(method.cases)}
    counts = np.zeros((len(method.cases), len(method.summary.classes) - 1), dtype=np.int64)
    for organs in recorded:
        missed = organs[organs["Status"] == "missed"]
        for case, label in zip(missed["Filename"], missed["Class"], strict=True):
            counts[row[str(case)], int(label) - 1] += 1
    return counts
