"""One process per folder, with real processes."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from duomod.errors import InputError
from duomod.locks import LOCK, locked

HOLD = """
import sys
from pathlib import Path
from duomod.locks import locked
with locked(Path(sys.argv[1]), "a training"):
    print("taken", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has a folder for itself until its standard input is closed."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "taken\n"
    try:
        yield process
    finally:
        process.communicate()


def no_locks(*_: Any) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def test_a_second_process_is_told_who_has_the_folder(tmp_path: Path) -> None:
    with holder(tmp_path) as process, pytest.raises(InputError) as refused, locked(tmp_path, "a prediction"):
        pass
    text = str(refused.value)
    assert f"{tmp_path}: a training is running in this folder" in text
    assert f"process {process.pid} on {socket.gethostname()}" in text
    assert len(text.splitlines()) == 1


def test_it_is_free_again_afterwards_and_nothing_is_left(tmp_path: Path) -> None:
    with holder(tmp_path):
        assert (tmp_path / LOCK).is_file()
    for _ in range(2):
        with locked(tmp_path, "a training"):
            assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_killed_process_holds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / LOCK).is_file()
        with locked(tmp_path, "a training"):
            pass
    assert capsys.readouterr().err == ""


def test_a_folder_made_for_nothing_goes_again(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "run"
    with pytest.raises(ValueError, match="no"), locked(folder, "a training"):
        raise ValueError("no")
    assert not folder.exists()
    with locked(folder, "a training"):
        (folder / "result").touch()
    assert (folder / "result").exists()


def test_of_many_at_once_one_has_it(tmp_path: Path) -> None:
    began, inside, most, refused = threading.Barrier(8), 0, 0, 0

    def take() -> None:
        nonlocal inside, most, refused
        began.wait()
        for _ in range(20):
            try:
                with locked(tmp_path, "a training"):
                    inside += 1
                    most = max(most, inside)
                    inside -= 1
            except InputError:
                refused += 1

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert refused < 160


class TestWithoutLocks:
    """On a file system that has none the note alone decides."""

    def test_it_says_so_and_a_living_process_is_heeded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(fcntl, "flock", no_locks)
        with locked(tmp_path, "a training"):
            assert "has no locks" in capsys.readouterr().err
            with pytest.raises(InputError, match=f"process {os.getpid()} on .* delete .*{LOCK}"):
                locked(tmp_path, "a training").__enter__()
        assert not list(tmp_path.iterdir())

    def test_a_dead_process_is_not(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fcntl, "flock", no_locks)
        with holder(tmp_path) as process:
            process.kill()
            process.wait()
        with locked(tmp_path, "a training"):
            assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()

    def test_one_on_another_host_is_taken_to_live(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fcntl, "flock", no_locks)
        (tmp_path / LOCK).write_text(json.dumps({"host": "elsewhere", "pid": 7, "what": "a training"}))
        with pytest.raises(InputError, match="process 7 on elsewhere"):
            locked(tmp_path, "a training").__enter__()

    @pytest.mark.parametrize("note", ["[" * 100_000, json.dumps({"host": socket.gethostname(), "pid": 10**15})])
    def test_a_note_that_nobody_wrote_names_nobody(
        self, note: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fcntl, "flock", no_locks)
        (tmp_path / LOCK).write_text(note)
        with pytest.raises(InputError, match=f"another process.* delete .*{LOCK}"):
            locked(tmp_path, "a training").__enter__()
