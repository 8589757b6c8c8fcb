"""Two sources of the reference implementation's numbers: the edition here and, where there is one, the full set."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from torch import Tensor


def _load_edition() -> ModuleType:
    specification = importlib.util.spec_from_file_location("golden_edition", Path(__file__).with_name("edition.py"))
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


EDITION = _load_edition()


class Arrays(dict[str, np.ndarray]):
    """The arrays of a file, and the names of those that nobody has read."""

    def __init__(self, content: dict[str, np.ndarray]) -> None:
        super().__init__(content)
        self.unread = set(content)

    def __getitem__(self, key: str) -> np.ndarray:
        self.unread.discard(key)
        return super().__getitem__(key)


class Numbers:
    """The files of one source. A test that opens a file reads every array of it, or fails at its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opened: dict[str, Arrays] = {}

    def arrays(self, name: str) -> Arrays:
        return self.opened.setdefault(name, Arrays(EDITION.arrays(self.folder, name)))

    def states(self, name: str) -> dict[str, dict[str, Tensor]]:
        content: dict[str, dict[str, Tensor]] = EDITION.states(self.folder, name)
        return content


@pytest.fixture
def edition() -> ModuleType:
    """The module that makes and reads the edition."""
    return EDITION


@pytest.fixture(params=["edition", "full set"])
def numbers(request: pytest.FixtureRequest) -> Iterator[Numbers]:
    folder = EDITION.NUMBERS if request.param == "edition" else request.getfixturevalue("golden")
    found = Numbers(folder)
    yield found
    unread = {name: sorted(arrays.unread) for name, arrays in found.opened.items() if arrays.unread}
    assert not unread, f"arrays that were not compared: {unread}"
