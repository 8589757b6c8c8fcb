"""A chart as a plain Plotly figure (``data`` and ``layout``), and what all charts share.

Every method has one colour, one marker and one dash in all charts, so that they can be told apart in grey too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from duomod.evaluation.metrics import Metric
from duomod.evaluation.results import FloatArray
from duomod.report.assets.palette import method_colour, method_marker

Trace = dict[str, Any]

#: Above this many methods, the rest of the box and scatter plots are switched off at first (their legend entry
#: switches them on).
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


def rounded(value: float) -> float | None:
    """A value as JSON has it: rounded, None where it is undefined."""
    return round(float(value), 5) if np.isfinite(value) else None


def all_rounded(values: FloatArray | Sequence[float]) -> list[float | None]:
    """Values as JSON has them; see :func:`rounded`."""
    return [rounded(value) for value in np.asarray(values, dtype=np.float64)]


def axis(title: str, metric: Metric | None = None, **more: Any) -> dict[str, Any]:
    """An axis; from 0 to 100 for a metric in per cent."""
    bounds = {"range": [0, 100]} if metric is not None and metric.kind == "overlap" else {}
    return {"title": {"text": title}, **bounds, **more}


def marker(index: int, **more: Any) -> dict[str, Any]:
    """The marker of a method."""
    return {"color": method_colour(index), "symbol": method_marker(index), **more}


def first_visible(index: int) -> bool | str:
    """Whether a method's trace is switched on at first."""
    return True if index < SHOWN_METHODS else "legendonly"
