"""The built-in phantom: an abdominal CT-like world with the organs of AMOS.

It stands in for real data in the demo and the tests. `anatomy` holds the average body, `drawing` paints a person with
the shapes of `shapes`, `scan` scans one, `write` writes a data set. The names below are loaded when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duomod.datasets.phantom.scan import PRESETS, PhantomCase, make_case, preset_spec
    from duomod.datasets.phantom.settings import Preset
    from duomod.datasets.phantom.write import write_phantom

__all__ = ["PRESETS", "PhantomCase", "Preset", "make_case", "preset_spec", "write_phantom"]

_ELSEWHERE = {"Preset": "settings", "write_phantom": "write"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ELSEWHERE.get(name, 'scan')}"), name)
