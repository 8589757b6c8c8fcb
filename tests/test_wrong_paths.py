"""Every path option of every command, given what it cannot use: exit code 2 and lines that name it.

The options come from the settings models, so that a new one is tried by itself; :data:`SOUND` says what else a command
needs, and :data:`OUTPUTS` which options are written to.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from command_line import duomod

from duomod.cli import main
from duomod.commands import COMMANDS
from duomod.flags import Option, get_args_or_self, options_of

#: A command line that works, but for the option tried; words in capitals are paths in the fixture's folder.
SOUND = {
    "preprocess": "--data_path RAW --output_path OUT --workers 1",
    "train": "--model supervised --data_path PRE --output_dir OUT --labeled_count 1 --preset compact --gpu _",
    "predict": "--model_path MODEL --output_path OUT --npy_path PRE --gpu _",
    "evaluate": "--pred_path PRED --gt_path TRUTH --output_csv OUT.csv --workers 1",
    "aggregate": "--method_base_dir RUNS",
    "compare": "TABLE OTHER --baseline method --output OUT",
    "report": "RUNS --output OUT --no_viewer --worst 0",
    "view": "SCAN --output OUT",
    "check-method": "",
    "check-network": "",
    "phantom": "OUT --cases 2 --preset tiny --workers 1",
    "pipeline": "CONFIG",
    "status": "CONFIG --once",
    "demo": "--output OUT --cases 8 --max_epochs 1 --steps_per_epoch 1",
    "methods": "",
    "settings": "",
}
SWITCHES = {"--no_viewer", "--once"}
#: Options that stand in for others of the sound line.
INSTEAD = {
    ("predict", "--input"): ("--npy_path",),
}
#: Fields that are written to.
OUTPUTS = {
    "output_path",
    "output_dir",
    "output",
    "out",
    "output_csv",
    "aggregated_csv_output",
    "summary_output",
    "table",
}
#: Endings that the option's own files have.
ENDINGS = {
    "dataset": ".yaml",
    "config": ".yaml",
    "plugin": ".py",
    "cases": ".txt",
    "model_path": ".pth",
    "tables": ".csv",
}
ENDINGS |= {"group_table": ".csv", "pred": ".nii.gz", "gt": ".nii.gz", "case": ".nii.gz", "input_path": ".nii.gz"}
ENDINGS |= {"tables": ".csv", "output_csv": ".csv", "table": ".csv", "aggregated_csv_output": ".csv"}
KINDS = ("missing", "empty folder", "empty file", "noise")
#: The permissions of root are no test.
UNREADABLE = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


def is_path(option: Option, annotation: object) -> bool:
    kinds = {part for one in get_args_or_self(annotation) for part in (one, *get_args(one))}
    return option.field == "dataset" or Path in kinds


OPTIONS = [
    (command.name, option)
    for command in COMMANDS
    for option in options_of(command.settings)
    if not option.shortcut and is_path(option, command.settings.model_fields[option.field].annotation)
]
INPUTS = [one for one in OPTIONS if one[1].field not in OUTPUTS]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the sound command lines find."""
    folder = tmp_path_factory.mktemp("sound")
    raw, pre, runs = folder / "raw", folder / "pre", folder / "method"
    run = runs / "seed_0"
    duomod("phantom", raw, "--cases", "4", "--preset", "tiny", "--workers", "1")
    duomod("preprocess", "--data_path", raw, "--output_path", pre, "--spacing", "12,12,12", "--workers", "1")
    small = "--max_epochs 1 --steps_per_epoch 1 --patch 8,16,16 --precision fp32 --set network.filters=2"
    line = f"--model supervised --labeled_count 1 --preset compact {small} --set network.levels=2 --gpu"
    duomod("train", *line.split(), "", "--data_path", pre, "--output_dir", run)
    model = run / "ckpts" / "best_model.pth"
    duomod("predict", "--input", raw / "imagesVa", "--model", model, "--output", run / "predictions", "--gpu", "")
    duomod("evaluate", run / "predictions", raw / "labelsVa", "--output_csv", run / "result.csv", "--workers", "1")
    shutil.copytree(run, runs / "seed_1")
    shutil.copytree(runs, other := folder / "other")
    for method in (runs, other):
        duomod("aggregate", "--method_base_dir", method)
    return {
        "RAW": raw,
        "PRE": pre,
        "MODEL": model,
        "PRED": run / "predictions",
        "TRUTH": raw / "labelsVa",
        "RUNS": runs,
        "OTHER": other / "other_aggregated_metrics.csv",
        "TABLE": runs / "method_aggregated_metrics.csv",
        "SCAN": next((raw / "imagesVa").iterdir()),
        "CONFIG": folder / "none.yaml",
    }


def line_with(command: str, option: Option, value: Path, sound: dict[str, Path], folder: Path) -> list[str]:
    """A command's sound line with one value replaced or added."""
    gone = {*option.names, *INSTEAD.get((command, option.names[0] if option.names else ""), ())}
    words: list[str] = []
    rest = iter(SOUND[command].split())
    for word in rest:
        if word in SWITCHES:
            words.append(word)
        elif word.startswith("--"):
            value_there = next(rest)
            words += [] if word in gone else [word, value_there]
        elif not option.flag.positional:
            words.append(word)
    places = {**sound, "OUT": folder / "out", "OUT.csv": folder / "out.csv", "_": ""}
    words = [str(places.get(word, word)) for word in words]
    return [command, str(value), *words] if option.flag.positional else [command, *words, option.names[0], str(value)]


def refused(arguments: list[str], value: Path, names: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    shown = capsys.readouterr().err
    assert "Traceback" not in shown, shown
    assert "something unforeseen" not in shown, shown
    assert ended.value.code == 2, f"{ended.value.code}: {shown}"
    errors = shown[shown.index("error: ") :] if "error: " in shown else shown
    assert str(value) in errors or (names and names[0] in errors), shown


@pytest.mark.parametrize("kind", [*KINDS, pytest.param("unreadable", marks=UNREADABLE)])
@pytest.mark.parametrize(("command", "option"), INPUTS, ids=[f"{command}-{option.field}" for command, option in INPUTS])
def test_an_input_that_cannot_be_used_is_named(
    command: str, option: Option, kind: str, sound: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = tmp_path / f"wrong{ENDINGS.get(option.field, '')}"
    if kind == "empty folder":
        value.mkdir()
    elif kind != "missing":
        value.write_bytes(b"" if kind == "empty file" else np.random.default_rng(0).bytes(5000))
    if kind == "unreadable":
        value.chmod(0)
    refused(line_with(command, option, value, sound, tmp_path), value, option.names, capsys)


@pytest.mark.parametrize("kind", ["file in the way", "file above"])
@pytest.mark.parametrize(
    ("command", "option"),
    [one for one in OPTIONS if one[1].field in OUTPUTS],
    ids=[f"{command}-{option.field}" for command, option in OPTIONS if option.field in OUTPUTS],
)
def test_an_output_that_cannot_be_written_is_named(
    command: str, option: Option, kind: str, sound: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ending = ENDINGS.get(option.field, "")
    is_file = bool(ending) or option.field == "summary_output"
    value = tmp_path / ("above" if kind == "file above" else "") / f"wrong{ending}"
    if kind == "file above":
        value.parent.write_text("mine")
    elif is_file:
        value.mkdir()
        (value / "mine.txt").write_text("mine")
    else:
        value.write_text("mine")
    named = value.parent if kind == "file above" else value
    refused(line_with(command, option, value, sound, tmp_path), named, option.names, capsys)
    mine = value.parent if kind == "file above" else value / "mine.txt" if is_file else value
    assert mine.read_text() == "mine"


def test_every_command_has_a_sound_line() -> None:
    assert set(SOUND) == {command.name for command in COMMANDS}
