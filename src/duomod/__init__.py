"""duomod: class-imbalanced, semi-supervised segmentation of 3D medical images.

In programs: ``duomod.train(model="cps", data_path="data", output_dir="run")``; see docs/api.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from duomod.version import __version__ as __version__

__all__ = ["Predictor", "__version__", "aggregate", "compare", "evaluate", "predict", "preprocess", "report", "train"]

if TYPE_CHECKING:
    from duomod.api import aggregate, compare, evaluate, predict, preprocess, report, train
    from duomod.inference.predictor import Predictor


def __getattr__(name: str) -> Any:
    """Load a function when it is first asked for, so that importing duomod stays cheap."""
    if name not in __all__:
        raise AttributeError(f"module 'duomod' has no attribute '{name}'")
    return getattr(import_module("duomod.inference.predictor" if name == "Predictor" else "duomod.api"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
