"""HTML templates of the report and the viewer (Jinja; everything that is filled in is escaped)."""

from __future__ import annotations

import json
import secrets
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from duomod.report.assets import VIEWER_SCRIPTS

#: What a page may load and do, as a Content-Security-Policy: its own files, and nothing that leaves the computer.
#: Styles inside elements are Plotly's; its scripts run without ``unsafe-eval``.
_POLICY = (
    "default-src 'none'; script-src {scripts}; style-src {own} 'unsafe-inline'; img-src {own} data: blob:;"
    " connect-src 'none'; form-action 'none'; base-uri 'none'"
)
#: The policy of pages that come from a server, for its header.
SERVED_POLICY = _POLICY.format(scripts="'self'", own="'self'")

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
    # The scripts of a page are known by a number of its own: a page from disk has no address by which they could be
    # told from any other file, and browsers differ in what they make of 'self' there.
    nonce = secrets.token_urlsafe(16)
    policy = _POLICY.format(scripts=f"'nonce-{nonce}'", own="'self' file:")
    return _PAGES.get_template(template).render(values, policy=policy, nonce=nonce)


def script_json(value: Any) -> str:
    """Return a value as JSON that may stand inside a script element: nothing in it can end the element.

    Raises:
        ValueError: a number that JSON does not have (NaN, infinity).
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
