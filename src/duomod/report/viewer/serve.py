"""``duomod view``: the viewer on local files, from a server that only its user can reach, or as a folder."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from duomod.console import out, say
from duomod.extras import require_report_packages
from duomod.report.viewer.lifetime import ended_by_signals, temporary_folder
from duomod.report.viewer.page import check_files, view_page
from duomod.report.viewer.server import make_server
from duomod.report.viewer.settings import ViewSettings
from duomod.version import __version__
from duomod.whole_folder import check_replaceable, replaced_folder, write_record

#: Written last into a page's folder; by it a folder is known to be one, which a new page may replace.
RECORD = "view.json"


def run_view(config: ViewSettings) -> Path | None:
    """Show a case in the browser until Ctrl-C, SIGTERM, SIGHUP or the parent's end; or write the page into a folder.

    Returns:
        The page's path if it was written, None after serving.

    Raises:
        InputError: see :func:`duomod.report.viewer.page.view_page`; the port is taken; or ``config.output`` holds
            something that is not an older page, or was changed since.
    """
    require_report_packages("duomod view")
    check_files(config)
    if config.output is not None:
        check_replaceable(config.output, RECORD, "page")
        with replaced_folder(config.output, RECORD, "page") as folder:
            view_page(folder, config)
            write_record(folder, RECORD, {"duomod": __version__})
        return config.output / "index.html"
    # The port first: a taken one is said before the minute that a large scan takes.
    with ended_by_signals(), temporary_folder() as folder, make_server(folder, config.port) as server:
        view_page(folder, config)
        say("Only this address opens it, on this computer. Ctrl-C ends it.")
        out.print(server.url, markup=False)
        if config.browser:
            _open(server.url, folder.parent / "open.html")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("ended")
    return None


def _open(address: str, page: Path) -> None:
    """Open an address in the browser by a private page that leads there: all users see the arguments of a process."""
    page.write_text(f'<!doctype html><meta http-equiv="refresh" content="0; url={address}">', encoding="ascii")
    webbrowser.open(page.as_uri())
