"""How a scan's values become grey: the window they are first seen through, and as how many levels they are stored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from duomod.report.viewer.packing import packed

CT_WINDOW = (-125.0, 275.0)
#: CT values that a 12-bit scanner gives; what metal adds beyond it is of no use on a screen.
_HU = (-1024, 3071)
_MR_LEVELS = 1023
#: No scan's values are beyond; sums and differences of such are still numbers in single precision.
_BEYOND = 1e30


def screen_values(image: NDArray[np.generic]) -> NDArray[np.float32]:
    """A scan's values in single precision, those that are no scan's cut off."""
    return (np.clip(image, -_BEYOND, _BEYOND) if image.dtype.kind == "f" else image).astype(np.float32)


def window_of(values: NDArray[np.float32], modality: str) -> tuple[float, float]:
    """Values shown as black and white at first: for CT the abdomen's HU, for MR the 0.5th and 99.5th percentile."""
    if modality == "CT":
        return CT_WINDOW
    inside = values[values > values.min()]
    low, high = (float(v) for v in np.percentile(inside if inside.size else values, (0.5, 99.5)))
    return low, high if high > low else low + 1


def grey_image(image: NDArray[np.generic], modality: str) -> dict[str, Any]:
    """Return a scan (D, H, W) as int16 with the scale that restores its values, and the window to begin with.

    ``exact`` says whether values are restored exactly; ``ends`` holds the lowest and highest stored value where values
    beyond them were clipped, else None.
    """
    values = screen_values(image)
    floor, ceiling = float(values.min()), float(values.max())
    low, high = window_of(values, modality)
    if modality == "CT":
        first, last = max(floor, _HU[0]), min(ceiling, _HU[1])
        start, slope, exact = 0.0, 1.0, True
        ends = [_HU[0] if floor < _HU[0] else None, _HU[1] if ceiling > _HU[1] else None]
    else:
        # A few extreme voxels must not take the levels from all others.
        reach = 2 * (high - low)
        first, last = max(floor, low - reach), min(ceiling, high + reach)
        exact = last - first <= _MR_LEVELS and np.array_equal(values, np.rint(values))
        if exact:
            first, last = float(np.ceil(first)), float(np.floor(last))
        # More levels would only make the file larger.
        slope = 1.0 if exact else max(last - first, 1e-6) / _MR_LEVELS
        start = first
        ends = [0 if floor < first else None, round((last - first) / slope) if ceiling > last else None]
    stored = np.rint((values.clip(first, last) - start) / slope).astype(np.int16)
    return {
        "data": packed(stored),
        "slope": slope,
        "intercept": start,
        "unit": "HU" if modality == "CT" else "",
        "window": [low, high],
        "exact": exact,
        "ends": ends,
    }
