"""Metrics by name. A file in this folder that has ``MEASURES`` adds a metric or a family of metrics."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from duomod.errors import InputError, unknown_name
from duomod.evaluation.metrics.base import Measure, Metric, Pair

_NOT_METRICS = {"base", "registry", "surfaces"}
_KINDS = ("overlap", "distance", "volume")


def measures_in(folders: Iterable[str]) -> list[Measure]:
    """The measures of all files in this package's folders: overlaps, then distances, then volumes.

    Raises:
        InputError: a file without ``MEASURES``, or with something else of that name.
    """
    found: list[Measure] = []
    problems = []
    for module in pkgutil.iter_modules(folders):
        if module.name in _NOT_METRICS:
            continue
        content = vars(importlib.import_module(f"{__package__}.{module.name}"))
        measures = content.get("MEASURES")
        if isinstance(measures, tuple | list) and all(isinstance(one, Measure) for one in measures):
            found += measures
        else:
            problems.append(
                f"{content.get('__file__')}: has no MEASURES, a tuple of Measure; a file beside the metrics must be one"
                " (a helper belongs into the file that uses it)"
            )
    if problems:
        raise InputError(problems)
    return sorted(found, key=lambda measure: _KINDS.index(measure.metric.kind))


def by_column(measures: Iterable[Measure]) -> dict[str, Measure]:
    """Measures by the column that they fill.

    Raises:
        InputError: two of them fill one column with different values.
    """
    found: dict[str, Measure] = {}
    for one in measures:
        if found.setdefault(one.metric.column, one).compute is not one.compute:
            raise InputError(f"two metrics fill the column {one.metric.column}; give the newer one a column of its own")
    return found


def by_name(measures: Iterable[Measure]) -> dict[str, Metric]:
    """Metrics by the name they are asked for; of the variants of ``asd`` the default one.

    Raises:
        InputError: two of them have one name.
    """
    found: dict[str, Metric] = {}
    for one in measures:
        if one.asd_variant in (None, "assd") and found.setdefault(one.metric.name, one.metric) is not one.metric:
            raise InputError(f"two metrics are called '{one.metric.name}'; give the newer one a name of its own")
    return found


_MEASURES = measures_in([str(Path(__file__).parent)])
_BY_COLUMN = by_column(_MEASURES)

#: What the metric called ``asd`` may be. Only ``assd`` fills columns named ASD; the others carry their own names.
ASD_VARIANTS: dict[str, Metric] = {m.asd_variant: m.metric for m in _MEASURES if m.asd_variant is not None}
METRICS: dict[str, Metric] = by_name(_MEASURES)


def measure(metric: Metric, pair: Pair) -> float:
    """Return the value of a metric for a pair of masks."""
    return _BY_COLUMN[metric.column].compute(pair)


def select_metrics(names: Sequence[str], asd: str = "assd") -> list[Metric]:
    """Return the metrics that were asked for, with the chosen variant in place of ``asd``.

    Raises:
        InputError: lists every unknown name; no metric is given twice.
    """
    problems = [unknown_name("metric", name, METRICS) for name in names if name not in METRICS]
    if asd not in ASD_VARIANTS:
        problems.append(unknown_name("ASD variant", asd, ASD_VARIANTS))
    if not names:
        problems.append(f"no metric chosen; known: {', '.join(METRICS)}")
    if problems:
        raise InputError(problems)
    chosen = [ASD_VARIANTS[asd] if name == "asd" else METRICS[name] for name in dict.fromkeys(names)]
    if len({metric.column for metric in chosen}) != len(chosen):
        raise InputError("asd=one_way and the metric asd_one_way are the same thing; leave one out")
    return chosen
