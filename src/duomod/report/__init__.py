"""Stage 10: tables, figures and pages for people. Called, it writes a report: ``duomod.report(...)``."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duomod.api import Reported


class _Stage(ModuleType):
    """Python puts this folder in the place of the function ``duomod.report`` once it is imported; both must work."""

    def __call__(self, *settings: Any, **given: Any) -> Reported:
        from duomod.api import report

        return report(*settings, **given)


sys.modules[__name__].__class__ = _Stage
