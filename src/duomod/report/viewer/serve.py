"""``duomod view``: the viewer on local files, from a server that only this computer can reach, or as a folder."""

from __future__ import annotations

import signal
import tempfile
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from duomod.console import out, say
from duomod.datasets.case_names import case_id
from duomod.datasets.labels import read_labels
from duomod.datasets.scan import to_array
from duomod.datasets.spec import Modality, load_spec, numbered_classes
from duomod.errors import InputError
from duomod.evaluation.naming import Naming, find_naming
from duomod.extras import require_report_packages
from duomod.report.assets import copy_assets
from duomod.report.sources.scans import CaseSource, Overlay, read_scan
from duomod.report.templates import render
from duomod.report.viewer.case import write_case
from duomod.report.viewer.settings import ViewSettings
from duomod.version import __version__
from duomod.workspace import write_text

LOOPBACK = "127.0.0.1"
#: A scan with values below this is taken for CT: air is -1000 HU, and MR values start at 0.
_AIR_HU = -500


def view_page(
    folder: Path, case: Path, *, pred: Sequence[Path] = (), gt: Path | None = None, dataset: str | None = None
) -> Path:
    """Write a folder that shows one case and opens offline.

    Args:
        folder: Target; made if it is not there.
        case: The scan: a NIfTI file or a DICOM folder.
        pred: Predicted label maps on its grid; each is called after its file, or where files are alike after what
            differs in their paths.
        gt: True label map on its grid.
        dataset: Names the classes; by default a dataset.json near the label maps does, else they have numbers.

    Returns:
        The path of ``index.html``.

    Raises:
        InputError: a file cannot be read or lies on another grid; all such files are listed.
    """
    problems = [f"{path}: file not found" for path in (case, *pred, *([gt] if gt else [])) if not path.exists()]
    if problems:
        raise InputError(problems)
    maps = [path for path in (gt, *pred) if path is not None]
    naming = find_naming(maps[-1], maps[0], dataset, None) if maps else Naming()
    classes = naming.classes or numbered_classes(_classes_in(maps))
    name = case_id(case.name)
    overlays = [Overlay(title, path) for title, path in zip(_titles(pred), pred, strict=True)]
    copy_assets(folder / "assets")
    source = CaseSource(name, case, gt, overlays, classes, _modality(case, name, dataset), naming.label_merges)
    write_case(folder / "cases" / "1.js", source)
    page = folder / "index.html"
    write_text(page, render("view.html.j2", case=name, version=__version__))
    return page


def _titles(paths: Sequence[Path]) -> list[str]:
    """File names without endings; where two are alike, the parts of the paths that differ, else numbers too."""
    titles = [case_id(path.name) for path in paths]
    if len(set(titles)) == len(titles):
        return titles
    parts = [[*path.absolute().parent.parts, title] for path, title in zip(paths, titles, strict=True)]
    shared = 0  # folders that all paths begin with
    while len({tuple(part[: shared + 1]) for part in parts}) == 1 and min(map(len, parts)) > shared + 1:
        shared += 1
    alike = 0  # ... and parts that all end with
    while len({tuple(part[-alike - 1 :]) for part in parts}) == 1 and min(map(len, parts)) > shared + alike + 1:
        alike += 1
    titles = ["/".join(part[shared : len(part) - alike]) for part in parts]
    if len(set(titles)) < len(titles):
        titles = [f"{title} ({number})" for number, title in enumerate(titles, start=1)]
    return titles


def _classes_in(maps: Sequence[Path]) -> int:
    """As many classes as the label maps show, and at least two."""
    return max(2, *(int(read_labels(path)[0].max()) + 1 for path in maps)) if maps else 2


def _modality(case: Path, name: str, dataset: str | None) -> Modality:
    if dataset is not None and not dataset.endswith(".json"):
        return load_spec(dataset).case_modality(name)
    return "CT" if to_array(read_scan(case)).min() < _AIR_HU else "MR"


class Handler(SimpleHTTPRequestHandler):
    """Serves the files of one folder, for reading, to pages that were opened under a loopback name."""

    def send_head(self) -> BytesIO | BinaryIO | None:
        """Refuse other names for this computer: a foreign page could read the scans by them (DNS rebinding)."""
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        if host not in (LOOPBACK, "localhost"):
            self.send_error(HTTPStatus.FORBIDDEN, "Only for this computer")
            return None
        return super().send_head()

    def list_directory(self, path: str | PathLike[str]) -> None:
        """No listings."""
        self.send_error(HTTPStatus.NOT_FOUND, "Not found")

    def end_headers(self) -> None:
        """Scans are not kept in the browser's cache, and no other page may frame or read them."""
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
        """Quiet."""


def make_server(folder: Path, port: int = 0) -> ThreadingHTTPServer:
    """Return a server of a folder on the loopback address, not yet running.

    Raises:
        InputError: the port is taken or may not be used.
    """
    try:
        return ThreadingHTTPServer((LOOPBACK, port), partial(Handler, directory=str(folder)))
    except (OSError, OverflowError) as error:
        raise InputError(f"--port {port}: cannot be used ({error}); leave it out to get a free one") from None


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let a closed terminal or ``kill`` end the block like Ctrl-C, so that no scan stays in the temporary folder."""

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    names = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP
    known = [getattr(signal, name) for name in names if hasattr(signal, name)]
    try:
        before = {number: signal.signal(number, end) for number in known}
    except ValueError:  # not the main thread: whoever runs us there handles signals
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_view(config: ViewSettings) -> Path | None:
    """Show a case in the browser until Ctrl-C, SIGTERM or SIGHUP; or write the page into a folder.

    Returns:
        The page's path if it was written, None after serving.

    Raises:
        InputError: see :func:`view_page`; or ``config.output`` holds something already.
    """
    require_report_packages("duomod view")
    output = config.output
    if output is not None:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise InputError(f"{output}: exists; choose another --output, or move it away")
        return view_page(output, config.case, pred=config.pred, gt=config.gt, dataset=config.dataset)
    with _ended_by_signals(), tempfile.TemporaryDirectory(prefix="duomod-view-") as temporary:
        view_page(Path(temporary), config.case, pred=config.pred, gt=config.gt, dataset=config.dataset)
        with make_server(Path(temporary), config.port) as server:
            url = f"http://{LOOPBACK}:{server.server_address[1]}/"
            say("Only this computer can open it. Ctrl-C ends it.")
            out.print(url, markup=False)
            if config.browser:
                webbrowser.open(url)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                say("ended")
    return None
