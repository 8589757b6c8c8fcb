"""Style sheets and scripts of the report and the viewer; Plotly's script comes from its installed package."""

from __future__ import annotations

from importlib import metadata
from importlib.resources import files
from pathlib import Path

from duomod.errors import DuomodError
from duomod.workspace import write_text

#: The viewer, in the order in which a page loads it. Classic scripts: a page opened from disk may not load modules.
VIEWER_SCRIPTS = (
    "viewer-cases.js",
    "viewer-elements.js",
    "viewer-painter.js",
    "viewer-planes.js",
    "viewer-surfaces.js",
    "viewer.js",
)
OWN = ("viewer.css", *VIEWER_SCRIPTS, "report.css", "report.js", "view.js")


def copy_assets(folder: Path) -> None:
    """Write what a page needs to open offline: our files, ``plotly.min.js`` and its licence in ``LICENSES.txt``.

    Raises:
        DuomodError: the installed plotly package lacks its script or its licence.
    """
    for name in OWN:
        write_text(folder / name, (files(__name__) / name).read_text(encoding="utf-8"))
    script = files("plotly") / "package_data" / "plotly.min.js"
    licences = [path for path in metadata.files("plotly") or [] if "license" in path.name.lower()]
    if not script.is_file() or not licences:
        raise DuomodError("the installed package plotly lacks plotly.min.js or its licence; install it again")
    write_text(folder / "plotly.min.js", script.read_text(encoding="utf-8"))
    texts = "\n".join(path.read_text(encoding="utf-8") for path in licences)
    write_text(folder / "LICENSES.txt", f"plotly.min.js, from plotly {metadata.version('plotly')}:\n\n{texts}\n")
