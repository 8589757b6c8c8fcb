"""DHC's weights and GACE against the reference implementation's numbers (golden/README.md says how they were made)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from duomod.losses.gace import gace
from duomod.methods.dhc import DiffDW, DistDW

pytestmark = pytest.mark.golden


def load(folder: Path, name: str) -> dict[str, torch.Tensor]:
    with np.load(folder / name) as data:
        return {key: torch.from_numpy(data[key]) for key in data}


def test_dhc_weights(golden: Path) -> None:
    arrays = load(golden, "dhc_weights.npz")
    counts = arrays.pop("dist_init_counts")
    voxels = arrays["zu0"][:, 0].numel()
    # Ours follows shares of one step's voxels; the reference follows counts.
    distribution = DistDW(counts / voxels, momentum=0.99)
    difficulty = DiffDW(len(counts), accumulate=50)
    steps = sum(key.startswith("zu") for key in arrays)
    for t in range(steps):
        found = distribution.update(arrays.pop(f"zu{t}").argmax(1))
        torch.testing.assert_close(found, arrays.pop(f"distdw{t}"), rtol=0, atol=1e-5)
        found = difficulty.update(arrays.pop(f"zl{t}").argmax(1), arrays.pop(f"yl{t}")[:, 0])
        torch.testing.assert_close(found, arrays.pop(f"diffdw{t}"), rtol=0, atol=1e-5)
    assert steps >= 1
    assert not arrays, "arrays that were not compared"


@pytest.mark.parametrize("percent", [10, 100])
def test_gace_and_its_gradient(golden: Path, percent: int) -> None:
    arrays = load(golden, "losses.npz")
    logits = arrays["logits"].requires_grad_()
    loss = gace(logits, arrays["target"][:, 0], percent)
    loss.backward()
    torch.testing.assert_close(loss.detach(), arrays[f"gace{percent}"], rtol=0, atol=1e-5)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, arrays[f"gace{percent}_grad"], rtol=0, atol=1e-4)
