"""Where the tests find the reference numbers and the real data, and threads that fit a shared machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).parents[1]

# Tests run in several processes at once; more threads each would only fight.
torch.set_num_threads(1)


def golden_folder() -> Path:
    """The folder with the reference implementation's numbers."""
    return Path(os.environ.get("DUOMOD_GOLDEN", REPOSITORY.parent / "shared" / "golden"))


@pytest.fixture(scope="session")
def golden() -> Path:
    folder = golden_folder()
    if not folder.is_dir():
        pytest.skip(f"no reference numbers at {folder}; set DUOMOD_GOLDEN")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = Path(os.environ.get("DUOMOD_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set DUOMOD_SHARED")
    return folder


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """Whatever ran before, and in whatever order: a test that fails once fails again."""
    torch.manual_seed(0)
