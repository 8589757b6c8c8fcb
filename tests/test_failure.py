"""How commands end: a line, an exit code, and for what nobody foresaw a log with the traceback."""

from __future__ import annotations

import stat
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duomod import cli
from duomod.cli import main
from duomod.errors import DuomodError, InputError
from duomod.failure import tell, threads_told

Capture = pytest.CaptureFixture[str]


class OutOfMemoryError(RuntimeError):
    """As torch names a lack of memory on a GPU."""


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def ended(error: BaseException, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of a command whose work raises an error."""

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(cli, "run", fail)
    with pytest.raises(SystemExit) as caught:
        main([*arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TypeError("unhashable\nsecond line"), "something unforeseen failed: TypeError: unhashable"),
        (RecursionError("maximum recursion depth exceeded"), "RecursionError: maximum recursion depth exceeded"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "UnicodeDecodeError"),
        (EOFError("Ran out of input"), "the end came too early: Ran out of input"),
        (KeyError(), "something unforeseen failed: KeyError\n"),
        (
            MemoryError("Unable to allocate 74 GiB"),
            "not enough memory (Unable to allocate 74 GiB); use a smaller",
        ),
        (OutOfMemoryError("CUDA out of memory"), "not enough memory on the GPU (CUDA out of memory)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate"), "not enough memory (DefaultCPUAllocator"),
        (RuntimeError("escape \x1b[2J"), r"RuntimeError: escape \x1b[2J"),
        (OSError("no number"), "OSError: no number"),
        (GeneratorExit("odd"), "GeneratorExit: odd"),
    ],
)
def test_what_nobody_foresaw_is_a_line_and_a_private_log(
    error: BaseException, said: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ended(error, monkeypatch, "methods") == 1
    _, second = (shown := capsys.readouterr().err).splitlines()
    assert shown.startswith("error: ")
    assert said in shown
    assert "Traceback" not in shown
    (log,) = tmp_path.glob("duomod-*.log")
    assert f"the details are in {log}; --debug prints them" in second
    assert "Traceback (most recent call last)" in log.read_text(encoding="utf-8")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


@pytest.mark.parametrize("arguments", [("--debug", "methods"), ("methods", "--debug")])
def test_debug_prints_it_wherever_it_stands(
    arguments: tuple[str, ...], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ended(TypeError("odd"), monkeypatch, *arguments) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    assert ended(InputError("file: bad"), monkeypatch, *arguments) == 2
    assert "error: file: bad" in capsys.readouterr().err


def test_known_errors_keep_their_codes_and_leave_no_log(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ended(InputError(["one", "two"]), monkeypatch, "methods") == 2
    assert capsys.readouterr().err == "error: one\n       two\n"
    assert ended(DuomodError("a worker died"), monkeypatch, "methods") == 1
    assert capsys.readouterr().err == "error: a worker died\n"
    assert ended(KeyboardInterrupt(), monkeypatch, "methods") == 130
    assert ended(FileNotFoundError(2, "No such file or directory", "x.csv"), monkeypatch, "methods") == 2
    assert "x.csv" in capsys.readouterr().err
    assert not list(tmp_path.glob("duomod-*.log"))


def test_a_loader_s_words_are_shown_without_its_traceback(capsys: Capture) -> None:
    from torch.utils.data import DataLoader

    with pytest.raises(InputError) as caught:
        list(DataLoader(Damaged(), num_workers=1))  # type: ignore[arg-type]
    assert "Traceback" in str(caught.value)
    assert tell(caught.value) == 2
    assert capsys.readouterr().err == "error: a.npy: damaged; preprocess again\n"


class Damaged:
    """A set whose only sample cannot be read."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        raise InputError("a.npy: damaged; preprocess again")


def test_without_a_place_for_the_log_the_line_stays(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    assert ended(TypeError("odd"), monkeypatch, "methods") == 1
    assert "TypeError: odd\n       the details could not be written" in capsys.readouterr().err


def test_a_thread_that_fails_is_told_too(tmp_path: Path, capsys: Capture) -> None:
    def fail() -> None:
        raise ValueError("in a thread")

    with threads_told():
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    assert "ValueError: in a thread" in capsys.readouterr().err
    assert list(tmp_path.glob("duomod-*.log"))


def test_an_option_given_twice_is_said_and_the_last_counts(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    monkeypatch.setattr(cli, "run", lambda command, made, as_json=False: found.append(made))
    line = "train --model cps --data_path d --output_dir o --seed 1 --seed 2 --set max_epochs=1 --set max_epochs=2"
    cli.app([*line.split(), "--gpu", "", "--gpu", ""], standalone_mode=False)
    shown = " ".join(capsys.readouterr().err.split())
    assert (found[0].seed, found[0].settings) == (2, {"max_epochs": 2})
    assert shown == (
        "--set max_epochs: is given several times; the last counts --seed: is given several times; the last counts"
    )
