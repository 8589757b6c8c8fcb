"""``duomod view``: who its server answers, what it leaves behind, and what it refuses."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from duomod.errors import InputError
from duomod.report.viewer.page import _titles
from duomod.report.viewer.serve import run_view
from duomod.report.viewer.server import ViewServer, make_server
from duomod.report.viewer.settings import ViewSettings


class Asker:
    """Asks a server as a browser does, or as someone who would like to see another's scan."""

    def __init__(self, server: ViewServer) -> None:
        self.server = server

    def __call__(self, path: str, *, method: str = "GET", host: str | None = None, cookie: str = "") -> Answer:
        """Ask with the cookie that the token gives, if no other is given."""
        own = f"{self.server.cookie}={self.server.token}"
        return ask(self.server.port, path, method=method, host=host, cookie=cookie or own)


Answer = tuple[int, bytes, dict[str, str]]


def ask(port: int, path: str, *, method: str = "GET", host: str | None = None, cookie: str | None = None) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{port}")
    if cookie:
        connection.putheader("Cookie", cookie)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read(), dict(answer.getheaders())


class TestServer:
    @pytest.fixture(scope="class")
    @staticmethod
    def server(page_folder: Path) -> Iterator[ViewServer]:
        (page_folder.parent / "secret.txt").write_text("not yours")
        with make_server(page_folder) as server:
            assert server.server_address[0] == "127.0.0.1"
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield server
            server.shutdown()

    @pytest.fixture
    @staticmethod
    def get(server: ViewServer) -> Asker:
        return Asker(server)

    def test_the_address_with_the_token_opens_it_and_the_cookie_keeps_it_open(self, server: ViewServer) -> None:
        status, body, headers = ask(server.port, server.url.removeprefix(f"http://127.0.0.1:{server.port}"))
        assert status == 200
        assert b"viewer-place" in body
        cookie, *attributes = headers["Set-Cookie"].split("; ")
        assert {"HttpOnly", "SameSite=Strict"} <= set(attributes)
        # Another program's cookie before it, and one that no parser likes.
        for sent in (cookie, f"a=b; {cookie}", f'odd={{"x y"}}; {cookie}'):
            assert ask(server.port, "/cases/1.js", cookie=sent)[0] == 200
            assert ask(server.port, "/cases/1.js", cookie=sent, method="HEAD")[:2] == (200, b"")

    @pytest.mark.parametrize("path", ["/", "/index.html", "/cases/1.js", "/assets/viewer.js", "/nothing", "/cases/"])
    def test_who_does_not_have_the_token_gets_nothing(self, server: ViewServer, path: str) -> None:
        name, token = server.cookie, server.token
        wrong = [None, f"{name}=", f"{name}=wrong", f"{name}={token}x", f"{name}={token[:-1]}", f"other={token}", name]
        for cookie in (*wrong, f"{name}=\u00e9"):
            status, body, headers = ask(server.port, path, cookie=cookie)
            assert (status, "Set-Cookie" in headers, b"Viewer" in body) == (403, False, False), cookie
        for query in ("?token=", "?token=wrong", f"?key={token}", f"?token={token[:-1]}", "?token=%00"):
            assert ask(server.port, f"{path}{query}")[0] == 403, query
        if path != "/":
            assert ask(server.port, f"{path}?token={token}")[0] == 403

    def test_two_viewers_do_not_share_a_token(self, server: ViewServer, page_folder: Path) -> None:
        with make_server(page_folder) as other:
            assert (other.token, other.cookie) != (server.token, server.cookie)
            assert len(other.token) >= 32

    @pytest.mark.parametrize("path", ["/", "/assets/viewer.js", "/nothing"])
    def test_no_other_page_may_frame_read_or_keep_it(self, get: Asker, path: str) -> None:
        headers = get(path)[2]
        policy = headers["Content-Security-Policy"].split("; ")
        for part in ("default-src 'none'", "connect-src 'none'", "frame-ancestors 'none'", "form-action 'none'"):
            assert part in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
    def test_other_names_are_refused(self, get: Asker, host: str) -> None:
        assert get("/", host=host or "[]")[0] == 403

    @pytest.mark.parametrize(
        "path",
        ["/../secret.txt", "/%2e%2e/secret.txt", "//../secret.txt", "/assets/../../secret.txt", "/%00", "/a" * 5000],
    )
    def test_nothing_outside_the_folder_is_reached(self, get: Asker, path: str) -> None:
        status, body, _ = get(path)
        assert status == 404
        assert b"not yours" not in body

    def test_folders_are_not_listed_and_nothing_can_be_changed(self, get: Asker) -> None:
        assert get("/cases/")[0] == 404
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"):
            assert get("/index.html", method=method)[0] == 501

    def test_a_download_that_is_broken_off_is_no_error(
        self, server: ViewServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        request = (
            f"GET /assets/plotly.min.js HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {server.cookie}={server.token}\r\n\r\n"
        )
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(request.encode())
                connection.recv(100)
                # A reset instead of an end.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        time.sleep(0.3)
        assert ask(server.port, "/nothing")[0] == 403
        assert "Traceback" not in capsys.readouterr().err


def heeds_signals() -> None:
    """Tests may run under nohup or in the background, where signals are ignored, also by what they start."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


#: Viewers of the test that runs.
started: list[subprocess.Popen[str]] = []


class View:
    """``duomod view`` as a process, whose temporary files lie in a folder of their own."""

    def __init__(self, place: Path, *arguments: object, before: tuple[str, ...] = (), ready: bool = True) -> None:
        self.place = place
        command = [*before, sys.executable, "-m", "duomod.cli", "view", *map(str, arguments), "--no_browser"]
        environment = {**os.environ, "TMPDIR": str(place)}
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
            start_new_session=True,
            preexec_fn=heeds_signals,
        )
        started.append(self.process)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip() if ready else ""

    def left(self) -> list[str]:
        return [path.name for path in self.place.glob("duomod-view-*")]

    def ended(self) -> str:
        """Wait for the end; return what it said."""
        return self.process.communicate(timeout=120)[1]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "tmp").mkdir()
    yield tmp_path / "tmp"
    while started:
        started.pop().kill()


class TestCommand:
    def test_it_serves_its_user_until_interrupted_and_leaves_nothing(self, files: dict[str, Path], place: Path) -> None:
        stale = place / "duomod-view-killed"
        (stale / "page" / "cases").mkdir(parents=True)
        (stale / "page" / "cases" / "1.js").write_text("a scan")
        (stale / "alive").touch()
        view = View(place, files["scan"], "--gt", files["truth"])
        match = re.fullmatch(r"http://127\.0\.0\.1:(\d+)(/\?token=[\w-]{32,})", view.url)
        assert match, view.url
        assert ask(int(match[1]), match[2])[0] == 200
        assert ask(int(match[1]), "/")[0] == 403
        # The scan of a killed viewer is gone; ours is for our eyes only.
        (folder,) = view.left()
        assert folder != stale.name
        assert (place / folder).stat().st_mode & 0o777 == 0o700
        second = View(place, files["scan"])
        assert len(view.left()) == 2, "a living viewer's scan stays"
        for one in (view, second):
            one.process.send_signal(signal.SIGINT)
            assert "Traceback" not in one.ended()
            assert one.process.returncode == 0
        assert view.left() == []

    @pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
    def test_no_scan_stays_behind_however_it_ends(
        self, files: dict[str, Path], place: Path, ending: signal.Signals
    ) -> None:
        view = View(place, files["scan"])
        assert len(view.left()) == 1
        view.process.send_signal(ending)
        assert "Traceback" not in view.ended()
        assert view.left() == []

    def test_it_ends_with_its_parent(self, files: dict[str, Path], place: Path) -> None:
        # As in a terminal: under nohup, which ignores SIGHUP, a viewer stays.
        parent = (
            "import signal, subprocess, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL);"
            " sys.exit(subprocess.Popen(sys.argv[1:]).wait())"
        )
        view = View(place, files["scan"], before=(sys.executable, "-c", parent))
        assert len(view.left()) == 1
        port = int(view.url.split(":")[2].split("/")[0])
        view.process.kill()
        latest = time.monotonic() + 60
        while view.left() and time.monotonic() < latest:
            time.sleep(0.1)
        assert view.left() == []
        with pytest.raises(ConnectionRefusedError):
            ask(port, "/")

    def test_a_taken_port_is_said_before_anything_is_read(self, place: Path, tmp_path: Path) -> None:
        (tmp_path / "scan.nii.gz").write_bytes(b"not read")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            view = View(place, tmp_path / "scan.nii.gz", "--port", port, ready=False)
            said = view.ended()
        assert view.process.returncode == 2
        assert [line for line in said.splitlines() if line] == [said.strip()]
        assert f"--port {port}: cannot be used" in said
        assert view.left() == []


def test_predictions_are_named_by_what_differs(tmp_path: Path) -> None:
    def names(*paths: str) -> list[str]:
        return _titles([tmp_path / path for path in paths])

    assert names("cps.nii.gz", "supervised.nii") == ["cps", "supervised"]
    assert names("cps/seed_0/predictions/a.nii.gz", "vnet/seed_0/predictions/a.nii.gz") == ["cps", "vnet"]
    assert names("cps/seed_0/p/a.nii.gz", "cps/seed_1/p/a.nii.gz", "vnet/seed_0/p/a.nii.gz") == [
        "cps/seed_0",
        "cps/seed_1",
        "vnet/seed_0",
    ]
    assert names("x/a.nii.gz", "x/a.nii.gz") == ["a (1)", "a (2)"]
    assert names("a.nii.gz", "x/a.nii.gz") == ["a", "x/a"]


class TestWrongUse:
    def test_every_missing_file_is_named(self, files: dict[str, Path], tmp_path: Path) -> None:
        with pytest.raises(InputError) as caught:
            run_view(ViewSettings(case=tmp_path / "no.nii.gz", pred=(tmp_path / "nor.nii.gz",), gt=files["truth"]))
        assert [Path(problem.split(": ")[0]).name for problem in caught.value.problems] == ["no.nii.gz", "nor.nii.gz"]

    def test_all_files_that_do_not_fit_are_named(self, files: dict[str, Path], tmp_path: Path) -> None:
        for name in ("scan", "a", "b"):
            (tmp_path / f"{name}.nii.gz").write_bytes(b"nothing")
        given = {"pred": (tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"), "output": tmp_path / "page"}
        with pytest.raises(InputError) as caught:
            run_view(ViewSettings(case=tmp_path / "scan.nii.gz", **given))
        names = [Path(problem.split(": ")[0]).name for problem in caught.value.problems]
        assert names == ["scan.nii.gz", "a.nii.gz", "b.nii.gz"]
        assert not (tmp_path / "page").exists()

    def test_a_page_is_replaced_and_a_folder_in_use_is_not_touched(
        self, files: dict[str, Path], tmp_path: Path
    ) -> None:
        page = tmp_path / "page"
        for _ in range(2):
            assert run_view(ViewSettings(case=files["scan"], output=page)) == page / "index.html"
        assert os.listdir(tmp_path) == ["page"]
        (page / "thesis.tex").write_text("years of work")
        with pytest.raises(InputError, match=r"thesis\.tex: is not of the page"):
            run_view(ViewSettings(case=files["scan"], output=page))
        assert (page / "thesis.tex").read_text() == "years of work"
