"""Stage 10: tables, figures and pages for people. Called, it writes a report: ``duomod.report(...)``."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Stage(ModuleType):
    """Python puts this folder in the place of the function ``duomod.report`` once it is imported; both must work."""

    def __call__(self, *settings: Any, **given: Any) -> Any:
        # Through the package's front, which stands before all stages: a stage imports nothing that comes after it.
        return sys.modules["duomod"].__getattr__("report")(*settings, **given)


sys.modules[__name__].__class__ = _Stage
