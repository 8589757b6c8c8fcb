"""Dice on the evaluation cases during training, on the preprocessed grid.

This is the one place where training imports later stages (inference's sliding window, evaluation's Dice): validating
with another window than the one that predicts, or by another score, would select the wrong model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from duomod.errors import DuomodError
from duomod.evaluation.metrics.overlap import class_dice
from duomod.inference.sliding_window import predict_probabilities
from duomod.preprocessing.store import Store


class UnsoundError(DuomodError):
    """A model that answers with something that is no number."""


def validate(
    model: nn.Module,
    store: Store,
    cases: Sequence[str],
    patch: tuple[int, int, int],
    overlap: float,
    device: torch.device,
    dtype: torch.dtype | None,
    both_empty: str = "excluded",
) -> NDArray[np.float64]:
    """Mean Dice per foreground class (C - 1,) over the cases.

    A class in neither truth nor prediction of a case is left out, or counts 1 with ``both_empty="one"``.

    Raises:
        UnsoundError: the model's probabilities are no numbers; any class would be as good as another.
    """
    classes = store.spec.num_classes
    scores = []
    model.eval()
    for case in cases:
        probabilities = predict_probabilities(
            model, store.normalised(case), patch, overlap=overlap, blending="uniform", device=device, amp_dtype=dtype
        )
        if not bool(probabilities.sum().isfinite()):
            raise UnsoundError(f"validation of {case}: the model gives probabilities that are not finite")
        scores.append(class_dice(probabilities.argmax(0).to(torch.uint8).cpu().numpy(), store.label(case), classes))
    stacked = np.stack(scores)[:, 1:]
    if both_empty == "one":
        stacked = np.where(np.isfinite(stacked), stacked, 1.0)
    found = np.isfinite(stacked)
    sums = np.where(found, stacked, 0).sum(0)
    return np.where(found.any(0), sums / np.maximum(found.sum(0), 1), np.nan)
