"""Charts of training: learning curves, and what the methods against imbalance did meanwhile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from duomod.evaluation.metrics import Metric
from duomod.report.assets.palette import METHODS, method_colour, method_dash
from duomod.report.charts.chart import Chart, Trace, axis, marker
from duomod.report.sources.collect import Collection, Method

#: A curve is thinned to this many points; more cannot be seen.
MAX_POINTS = 600


def _over_steps(title: str, metric: Metric | None = None) -> dict[str, Any]:
    return {"xaxis": axis("step", rangemode="tozero"), "yaxis": axis(title, metric)}


def _thinned(steps: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """A curve of at most MAX_POINTS points: means of equally many neighbours, and the last point as it is.

    Equally many, because the mean of fewer is noisier: bins of two sizes draw two curves in one. Means also of the
    steps, so that a smooth curve does not move. Only the first bin may be smaller.
    """
    if len(steps) <= MAX_POINTS:
        return list(steps), [round(value, 5) for value in values]
    size = math.ceil((len(steps) - 1) / (MAX_POINTS - 1))
    ends = range(len(steps) - 1, 0, -size)
    bins = [slice(max(0, end - size), end) for end in reversed(ends)]
    return (
        [*(round(fmean(steps[one]), 2) for one in bins), steps[-1]],
        [*(round(fmean(values[one]), 5) for one in bins), round(values[-1], 5)],
    )


def _curves(collection: Collection, name: str, scale: float = 1.0, markers: bool = False) -> list[Trace]:
    """One line per seed of each method that logged a value; one legend entry per method."""
    traces: list[Trace] = []
    for index, method in enumerate(collection.methods):
        first = True
        for seed in method.seeds:
            if name not in seed.beside.curves:
                continue
            steps, values = _thinned(*seed.beside.curves[name])
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
                    "marker": marker(index, size=6),
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
        caption = (
            "Mean of the steps between two log lines; one line per seed. Losses of different methods are sums of"
            " different terms: compare their course, not their height."
        )
        charts.append(Chart("loss", "Training loss", caption, loss, _over_steps("training loss")))
    dice = _curves(collection, "val_dice", scale=100, markers=True)
    if dice:
        layout = _over_steps("validation Dice (%)", collection.metric("Dice"))
        caption = "Mean foreground Dice on the validation cases, which are neither trained on nor reported above."
        charts.append(Chart("validation", "Validation Dice", caption, dice, layout))
    return charts


def _mean_curve(method: Method, name: str) -> tuple[list[int], list[float]]:
    """Mean over the seeds that logged a value, at the steps at which all of them did."""
    curves = [dict(zip(*seed.beside.curves[name], strict=True)) for seed in method.seeds if name in seed.beside.curves]
    steps = sorted(set.intersection(*map(set, curves)))
    return steps, [fmean(curve[step] for curve in curves) for step in steps]


def imbalance_curves(collection: Collection) -> list[Chart]:
    """RLM class weights (mean over seeds, one line per class) and DAFR gain over time, of the methods that log them."""
    charts: list[Chart] = []
    prefix = "rlm_weight/"
    weighted = [m for m in collection.methods if any(k.startswith(prefix) for s in m.seeds for k in s.beside.curves)]
    for method in weighted:
        names = list(dict.fromkeys(k for s in method.seeds for k in s.beside.curves if k.startswith(prefix)))
        traces: list[Trace] = []
        for index, name in enumerate(names):
            steps, values = _thinned(*_mean_curve(method, name))
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
                layout=_over_steps("class weight"),
                choice=method.name,
                group="rlm",
                height=440,
            )
        )
    gain = _curves(collection, "dafr_gain")
    if gain:
        caption = "Mean over voxels and both networks of DAFR's feature gain; 1 means untouched."
        charts.append(Chart("dafr", "DAFR gain", caption, gain, _over_steps("mean gain")))
    return charts
