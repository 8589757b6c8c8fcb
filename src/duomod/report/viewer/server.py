"""A server of one folder for one user of this computer: loopback only, and only for who has its token."""

from __future__ import annotations

import hmac
import secrets
import sys
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit

from duomod.console import say
from duomod.errors import InputError
from duomod.report.templates import SERVED_POLICY

LOOPBACK = "127.0.0.1"
#: Seconds that a connection may be silent before it is closed.
_SILENCE = 60

#: Sent with every answer. Scans are not kept in the browser's cache, no other page may frame or read them, and no other
#: page learns of the address.
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"{SERVED_POLICY}; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class ViewServer(ThreadingHTTPServer):
    """Holds a port from its making on; its folder is complete before :meth:`serve_forever`.

    Attributes:
        token: What a browser shows once, in the address; from then on it shows it as a cookie.
        url: The page's address, with the token.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__((LOOPBACK, port), partial(Handler, directory=str(folder)))
        self.token = secrets.token_urlsafe(32)

    @property
    def port(self) -> int:
        """The port it has."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """The page's address, with the token."""
        return f"http://{LOOPBACK}:{self.port}/?token={self.token}"

    @property
    def cookie(self) -> str:
        """The cookie's name. Browsers keep cookies by host, not by port: each viewer needs a name of its own."""
        return f"duomod-view-{self.port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that breaks a download off is no error; anything else is said in one line."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            say(f"an answer to the browser failed: {type(error).__name__}: {error}")


class Handler(SimpleHTTPRequestHandler):
    """Serves the files of one folder, for reading, to pages that were opened under a loopback name with the token."""

    server: ViewServer
    timeout = _SILENCE
    has_token = False
    server_version = "duomod"
    sys_version = ""

    def send_head(self) -> BytesIO | BinaryIO | None:
        """Refuse other names for this computer (a foreign page could read the scans by them: DNS rebinding), and all
        who do not have the token: other users of this computer reach the port too."""
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        if host not in (LOOPBACK, "localhost"):
            self.send_error(HTTPStatus.FORBIDDEN, "Only for this computer")
            return None
        self.has_token = self._token_in_address()
        if not self.has_token and not any(map(self._is_token, self._cookies())):
            self.send_error(HTTPStatus.FORBIDDEN, "Open the address that duomod view printed")
            return None
        try:
            return super().send_head()
        except ValueError:  # NUL in the path
            self.send_error(HTTPStatus.NOT_FOUND, "Not found")
            return None

    def _token_in_address(self) -> bool:
        address = urlsplit(self.path)
        return address.path == "/" and any(map(self._is_token, parse_qs(address.query).get("token", [])))

    def _cookies(self) -> Iterator[str]:
        """What our cookie holds. By hand: one odd cookie of another program on this host stops the standard parser."""
        for part in ";".join(self.headers.get_all("Cookie", [])).split(";"):
            name, _, value = part.strip().partition("=")
            if name == self.server.cookie:
                yield value

    def _is_token(self, shown: str) -> bool:
        """In the same time whatever is shown: how much of a guess is right must not be measurable."""
        return hmac.compare_digest(shown.encode("utf-8", "replace"), self.server.token.encode())

    def list_directory(self, path: str | PathLike[str]) -> None:
        """No listings."""
        self.send_error(HTTPStatus.NOT_FOUND, "Not found")

    def end_headers(self) -> None:
        """Add what every answer has; with the token in the address, the cookie too."""
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if self.has_token:
            cookie = f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Strict; Path=/"
            self.send_header("Set-Cookie", cookie)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
        """Quiet."""


def make_server(folder: Path, port: int = 0) -> ViewServer:
    """Return a server of a folder on the loopback address, not yet answering; the folder may still be empty.

    Raises:
        InputError: the port is taken or may not be used.
    """
    try:
        return ViewServer(folder, port)
    except (OSError, OverflowError) as error:
        raise InputError(f"--port {port}: cannot be used ({error}); leave it out to get a free one") from None
