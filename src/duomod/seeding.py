"""All randomness: one generator per (seed, purpose, indices), so that no draw depends on what was drawn before it."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """Return the generator for a purpose, e.g. ``generator(0, "labelled", step, sample)``."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), *indices])


def torch_seed(seed: int, purpose: str, *indices: int) -> int:
    """Return a seed for ``torch.manual_seed`` (dropout, noise), derived in the same way."""
    return int(generator(seed, purpose, *indices).integers(2**62))
