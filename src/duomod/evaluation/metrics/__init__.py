"""Overlap and surface metrics of masks, one file per metric or family; a new one is a new file."""

from __future__ import annotations

from duomod.evaluation.metrics.base import Metric, Pair
from duomod.evaluation.metrics.registry import ASD_VARIANTS, METRICS, measure, select_metrics

__all__ = ["ASD_VARIANTS", "METRICS", "Metric", "Pair", "measure", "select_metrics"]
