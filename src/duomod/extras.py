"""Optional packages: one line that says what to install where a command needs some that are not there."""

from __future__ import annotations

from importlib.util import find_spec

from duomod.errors import InputError

#: Of the extra ``report``: module -> package.
REPORT_PACKAGES = {"matplotlib": "matplotlib", "plotly": "plotly", "skimage": "scikit-image"}


def require_report_packages(what: str) -> None:
    """Stop before any work where a picture could not be drawn at its end.

    Args:
        what: What needs the packages, as the message begins.

    Raises:
        InputError: names the packages that are not installed, and the command that installs them.
    """
    missing = [package for module, package in REPORT_PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise InputError(f"{what} needs {', '.join(missing)}: pip install 'duomod[report]'")
