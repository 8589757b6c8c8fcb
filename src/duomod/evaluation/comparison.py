"""What a comparison of methods finds, as data."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict

from duomod.evaluation.aggregate import Number


class Comparison(BaseModel):
    """One method against the baseline on one metric in one scope (foreground, tail, or a class).

    Means, ``difference`` (method minus baseline) and the interval are in the metric's displayed unit (per cent, mm).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    baseline: str
    metric: str
    unit: str
    higher_is_better: bool
    scope: str
    n: int
    mean_method: Number
    mean_baseline: Number
    difference: Number
    ci_low: Number
    ci_high: Number
    p_wilcoxon: Number
    p_t_test: Number
    p_permutation: Number
    p_wilcoxon_holm: Number = math.nan
    p_t_test_holm: Number = math.nan
    p_permutation_holm: Number = math.nan
    cohens_dz: Number
    rank_biserial: Number
    family: int = 1
    sentence: str = ""


class ComparisonFile(BaseModel):
    """The content of ``comparison.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    baseline: str
    alpha: float
    resamples: int
    seed: int
    comparisons: tuple[Comparison, ...]
