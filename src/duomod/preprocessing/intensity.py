"""Intensities: what is stored, and what a network sees (always in [0, 1])."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from duomod.datasets.spec import Modality

#: Hounsfield units outside the scan.
AIR = -1024.0


def outside_value(image: sitk.Image, modality: Modality) -> float:
    """What surrounds a scan when it is resampled: air for CT, the scan's minimum for MR."""
    if modality == "CT":
        return AIR
    return float(sitk.GetArrayViewFromImage(image).min())


def stored(array: NDArray[np.generic], modality: Modality) -> NDArray[np.generic]:
    """Return the array as it is stored.

    CT: int16 HU. MR: float32 in [0, 1], scaled per case from the 0.5 to the 99.5 percentile of the voxels above the
    scan's minimum (its background); MR has no absolute scale.
    """
    if modality == "CT":
        limits = np.iinfo(np.int16)
        rounded: NDArray[np.int16] = np.clip(np.rint(array), limits.min, limits.max).astype(np.int16)
        return rounded
    values = array.astype(np.float32)
    tissue = values[values > values.min()]
    if not tissue.size:
        return np.zeros_like(values)
    low, high = np.percentile(tissue, [0.5, 99.5])
    scaled: NDArray[np.float32] = np.clip((values - low) / max(float(high - low), 1e-6), 0, 1).astype(np.float32)
    return scaled


def normalise(array: NDArray[np.generic], modality: Modality, window: tuple[float, float]) -> NDArray[np.float32]:
    """Map stored voxels to float32 in [0, 1]: CT through the window (HU), MR as stored."""
    values = array.astype(np.float32)
    if modality == "MR":
        return values
    low, high = window
    np.clip(values, low, high, out=values)
    values -= low
    values /= high - low
    return values


def statistics(array: NDArray[np.generic]) -> dict[str, float]:
    """Mean, standard deviation, extremes and the 0.5 and 99.5 percentiles of a stored array."""
    values = array.astype(np.float32)
    low, high = np.percentile(values, [0.5, 99.5])
    return {
        "mean": float(values.mean(dtype=np.float64)),
        "std": float(values.std(dtype=np.float64)),
        "min": float(values.min()),
        "max": float(values.max()),
        "percentile_00_5": float(low),
        "percentile_99_5": float(high),
    }
