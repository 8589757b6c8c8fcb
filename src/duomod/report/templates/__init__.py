"""HTML templates of the report and the viewer (Jinja; everything that is filled in is escaped)."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_PAGES = Environment(
    loader=PackageLoader("duomod.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> str:
    """Return a template of this folder as a page.

    Raises:
        jinja2.UndefinedError: the template uses a value that was not given.
    """
    return _PAGES.get_template(template).render(values)
