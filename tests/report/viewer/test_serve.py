"""``duomod view``: who its server answers, what it leaves behind, and what it refuses."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from duomod.errors import InputError
from duomod.report.viewer.serve import _titles, make_server, run_view
from duomod.report.viewer.settings import ViewSettings


class TestServer:
    @pytest.fixture(scope="class")
    @staticmethod
    def port(page_folder: Path) -> Iterator[int]:
        (page_folder.parent / "secret.txt").write_text("not yours")
        with make_server(page_folder) as server:
            assert server.server_address[0] == "127.0.0.1"
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield server.server_address[1]
            server.shutdown()

    @staticmethod
    def ask(port: int, path: str, host: str | None = None, method: str = "GET") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", host or f"127.0.0.1:{port}")
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()

    def test_it_serves_the_page(self, port: int) -> None:
        status, body = self.ask(port, "/")
        assert status == 200
        assert b"DuomodViewer.mount" in body

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
    def test_other_names_are_refused(self, port: int, host: str) -> None:
        assert self.ask(port, "/", host or "[]")[0] == 403

    @pytest.mark.parametrize(
        "path", ["/../secret.txt", "/%2e%2e/secret.txt", "//../secret.txt", "/assets/../../secret.txt"]
    )
    def test_nothing_outside_the_folder_is_reached(self, port: int, path: str) -> None:
        status, body = self.ask(port, path)
        assert status == 404
        assert b"not yours" not in body

    def test_folders_are_not_listed_and_nothing_can_be_changed(self, port: int) -> None:
        assert self.ask(port, "/cases/")[0] == 404
        for method in ("POST", "PUT", "DELETE"):
            assert self.ask(port, "/index.html", method=method)[0] == 501

    def test_the_command_serves_until_interrupted(self, files: dict[str, Path]) -> None:
        command = [sys.executable, "-m", "duomod.cli", "view", files["scan"], "--gt", files["truth"], "--no_browser"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            match = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", url)
            assert match, url
            assert self.ask(int(match[1]), "/")[0] == 200
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=30)
        assert process.returncode == 0, error
        assert "Traceback" not in error

    @pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
    def test_no_scan_stays_behind_however_it_ends(
        self, files: dict[str, Path], tmp_path: Path, ending: signal.Signals
    ) -> None:
        command = [sys.executable, "-m", "duomod.cli", "view", files["scan"], "--no_browser"]
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"http")
            assert len(list(tmp_path.glob("duomod-view-*"))) == 1
            process.send_signal(ending)
            process.communicate(timeout=30)
        assert list(tmp_path.iterdir()) == []


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

    def test_a_folder_in_use_is_not_touched(self, files: dict[str, Path], tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("years of work")
        with pytest.raises(InputError, match="exists"):
            run_view(ViewSettings(case=files["scan"], output=tmp_path))
        assert os.listdir(tmp_path) == ["thesis.tex"]

    def test_a_port_in_use_is_explained(self, page_folder: Path) -> None:
        with make_server(page_folder) as server, pytest.raises(InputError, match="--port"):
            make_server(page_folder, server.server_address[1])
