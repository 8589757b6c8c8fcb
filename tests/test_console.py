"""What is printed where the output's encoding lacks letters: something legible, and never an error."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from duomod.console import say, take_any_text

TEXT = "📊 87.50 ± 1.25, ≥ 3 × 2, é"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", "? 87.50 +- 1.25, >= 3 x 2, ?"),
        ("cp1252", "? 87.50 +- 1.25, >= 3 x 2, é"),
        ("cp437", "? 87.50 +- 1.25, >= 3 x 2, é"),
        ("utf-8", TEXT),
        ("utf-16", TEXT),
    ],
)
def test_every_encoding_takes_every_text(encoding: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = {name: io.BytesIO() for name in ("stdout", "stderr")}
    for name, stream in written.items():
        monkeypatch.setattr(sys, name, io.TextIOWrapper(stream, encoding=encoding))
    take_any_text()
    print(TEXT)
    say(TEXT)
    sys.stdout.flush()
    sys.stderr.flush()
    assert {stream.getvalue().decode(encoding) for stream in written.values()} == {f"{shown}\n"}


def test_a_file_name_that_is_no_text_is_shown_by_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="utf-8"))
    take_any_text()
    print(os.fsdecode(b"caf\xe9.nii.gz"), flush=True)
    assert written.getvalue() == b"caf\\xe9.nii.gz\n"


def test_outputs_that_cannot_change_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    take_any_text()


def duomod(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "duomod", *map(os.fsencode, arguments)]
    return subprocess.run(command, capture_output=True, env={**os.environ, **environment})


@pytest.mark.parametrize("settings", [{"PYTHONIOENCODING": "ascii:strict"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}])
def test_a_command_on_such_a_console_writes_everything(tmp_path: Path, settings: dict[str, str]) -> None:
    for seed in (0, 1):
        (tmp_path / f"seed_{seed}").mkdir()
        (tmp_path / f"seed_{seed}" / "result.csv").write_text("Filename,Dice_Class1\na,0.9\nb,0.8\n")
    done = duomod("aggregate", "--method_base_dir", tmp_path, PYTHONCOERCECLOCALE="0", **settings)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    assert b"Avg Foreground Dice    | 85.00 +- 0.00" in done.stdout
    written = (tmp_path / f"{tmp_path.name}_summary_results.txt").read_text(encoding="utf-8")
    assert "Avg Foreground Dice    | 85.00 ± 0.00" in written


def test_a_folder_whose_name_is_no_text_is_refused_in_a_line(tmp_path: Path) -> None:
    done = duomod("aggregate", "--method_base_dir", os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert rb"caf\xe9: a name with bytes that are no utf-8 text; rename it" in done.stderr
