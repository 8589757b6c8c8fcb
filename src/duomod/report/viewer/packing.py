"""Arrays as text that a browser unpacks by itself: gzip, then base64."""

from __future__ import annotations

import base64
import gzip
from typing import Any

import numpy as np
from numpy.typing import NDArray


def packed(array: NDArray[Any]) -> str:
    """Return an array's bytes (little endian) gzip-compressed, as base64. The same array always gives the same text.

    Two-byte values are stored as all low bytes, then all high bytes: the high ones hardly vary, and compress to little.
    """
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    if little.dtype.itemsize == 2:
        raw = np.ascontiguousarray(little.view(np.uint8).reshape(-1, 2).T).tobytes()
    else:
        raw = little.tobytes()
    return base64.b64encode(gzip.compress(raw, compresslevel=6, mtime=0)).decode("ascii")
