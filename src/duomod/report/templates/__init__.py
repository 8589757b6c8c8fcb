"""HTML templates of the report and the viewer (Jinja; everything that is filled in is escaped)."""

from __future__ import annotations

import json
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from duomod.report.assets import VIEWER_SCRIPTS

_PAGES = Environment(
    loader=PackageLoader("duomod.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_PAGES.globals["viewer_scripts"] = VIEWER_SCRIPTS


def render(template: str, **values: Any) -> str:
    """Return a template of this folder as a page.

    Raises:
        jinja2.UndefinedError: the template uses a value that was not given.
    """
    return _PAGES.get_template(template).render(values)


def script_json(value: Any) -> str:
    """Return a value as JSON that may stand inside a script element: nothing in it can end the element.

    Raises:
        ValueError: a number that JSON does not have (NaN, infinity).
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
