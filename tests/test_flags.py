"""Flags are made from the settings models, and a model's values become a command line that makes them again."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from duomod.cli import app, settings_from
from duomod.commands import COMMANDS, Command
from duomod.config import TrainConfig
from duomod.errors import InputError
from duomod.flags import Option, command_line, options_of, runnable, to_argv
from duomod.option_values import assignment_texts, assignments
from duomod.settings import Settings, leaf_names

#: Every name that the command line had when flags began to be made from models. None may get lost.
NAMES = {
    "preprocess": "--data_path --output_path --num_classes --dataset --task --workers --seed --spacing",
    "train": "--model --data_path --output_dir --seed --gpu --num_classes --preset --labeled_ratio --labeled_count"
    " --split --split_seed --max_epochs --steps_per_epoch --batch_size --patch --base_lr --precision --network --set"
    " --method_set --class_weights --sampling --plugin --resume --overwrite",
    "predict": "--model_path --model --output_path --output --input --npy_path --original_nii_path --gpu --exp"
    " --dataset --task --num_classes --split --overlap --blending --batch_size --precision",
    "evaluate": "--pred_path --gt_path --output_csv --num_classes --dataset --task --metrics --asd --protocol"
    " --empty_policy --tolerance --workers --allow_missing --cases",
    "aggregate": "--method_base_dir --seed_pattern --results_filename --aggregated_csv_output --summary_output"
    " --min_seeds --dataset --task --ddof --group_table --table",
    "compare": "--baseline --output -o --metrics --dataset --task --alpha --resamples --seed",
    "report": "--output -o --images --truth --dataset --task --baseline --worst --viewer --no_viewer --all_seeds"
    " --title",
    "view": "--pred --gt --dataset --task --port --browser --no_browser --output -o",
    "methods": "",
    "check-method": "",
    "phantom": "--cases --seed --preset --unlabeled --workers",
    "pipeline": "--dry_run",
    "demo": "--output --gpu --max_epochs",
}
#: Commands that print a table.
PRINT_TABLES = {
    "evaluate",
    "aggregate",
    "compare",
    "methods",
    "check-method",
    "check-network",
    "settings",
    "status",
    "demo",
}


def names_of(command: str) -> set[str]:
    group = typer.main.get_command(app)
    parameters = group.commands[command].params  # type: ignore[attr-defined]
    return {name for p in parameters if p.param_type_name == "option" for name in [*p.opts, *p.secondary_opts]}


def parsed(argv: list[str]) -> Settings:
    """The settings that a command line makes, through the very parser that the command has."""
    found: list[Settings] = []
    import duomod.cli as cli

    original, cli.run = cli.run, lambda command, made, as_json=False: found.append(made)  # type: ignore[assignment]
    try:
        app(argv[1:], standalone_mode=False)
    finally:
        cli.run = original
    return found[0]


@pytest.mark.parametrize("command", NAMES)
def test_no_name_that_ever_existed_is_lost(command: str) -> None:
    assert set(NAMES[command].split()) - names_of(command) == set()


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_exactly_the_commands_that_print_a_table_take_json(command: str) -> None:
    assert ("--json" in names_of(command)) == (command in PRINT_TABLES)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_option_says_what_it_does(command: Command) -> None:
    assert command.help
    assert [option.field for option in options_of(command.settings) if not option.meaning] == []


def test_every_setting_of_a_training_says_what_it_does() -> None:
    from duomod.settings_page import training_section

    assert [row.name for row in training_section().rows if not row.meaning] == []


def test_hyphens_and_underscores_are_the_same() -> None:
    one = parsed("duomod preprocess --data-path a --output-path b --num-classes 3".split())
    other = parsed("duomod preprocess --data_path a --output_path b --num_classes 3".split())
    assert one == other


def test_both_folders_of_evaluate_may_stand_alone() -> None:
    assert parsed(["duomod", "evaluate", "p", "t"]) == parsed("duomod evaluate --pred_path p --gt_path t".split())
    for wrong in (["evaluate", "p"], ["evaluate", "p", "t", "--gt_path", "t"]):
        with pytest.raises(InputError, match="--pred_path, --gt_path"):
            app(wrong, standalone_mode=False)


def test_a_shortcut_reaches_the_setting_it_stands_for_and_set_wins() -> None:
    line = "duomod train --model m --data_path d --output_dir o --patch 8,16,16 --base_lr 1e-2 --class_weights rlm"
    made = parsed([*line.split(), "--set", "optim.base_lr=3e-2", "--set", "optim.momentum=0.5"])
    assert made.settings == {  # type: ignore[attr-defined]
        "patch": ("8", "16", "16"),
        "optim": {"base_lr": 0.03, "momentum": 0.5},
    }
    assert TrainConfig.model_validate(made.settings).patch == (8, 16, 16)  # type: ignore[attr-defined]
    assert made.method_settings == {"class_weights": "rlm"}  # type: ignore[attr-defined]


def test_all_that_is_wrong_is_said_at_once_by_the_flags_names() -> None:
    line = "--model m --data_path d --output_dir o --patch 1,2 --preset compat --max_epochs 0 --set optim.sped=1"
    with pytest.raises(InputError) as caught:
        app(["train", *line.split(), "--set", "base_lr=1"], standalone_mode=False)
    assert caught.value.problems == (
        "--preset: 'compat' is not one of default, reference, compact. Did you mean 'compact'?",
        "--max_epochs: '0': should be greater than or equal to 1",
        "--patch: too few values",
        "--set optim.sped: no such setting. Did you mean 'optim.schedule'? The list: duomod settings train",
        "--set base_lr: no such setting. Did you mean 'optim.base_lr'? The list: duomod settings train",
    )


def test_an_unknown_command_or_option_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, meant in ((["trian"], "'train'"), (["evaluate", "--metric", "dice"], "--metrics")):
        with pytest.raises(SystemExit) as caught:
            app(arguments)
        assert caught.value.code == 2
        shown = capsys.readouterr().err
        assert meant in shown
        assert "--help" in shown


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C"], exclude_characters=","), min_size=1, max_size=8)
WORDS = TEXT.map(str.strip).filter(bool)
SETTING_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "max_epochs": st.integers(1, 9),
    "optim.base_lr": st.floats(1e-6, 1),
    "optim.schedule": st.sampled_from(["poly", "one_cycle"]),
    "optim.clip_gradient": st.none() | st.floats(0.1, 9),
    "patch": st.none() | st.tuples(*[st.integers(1, 99)] * 3).map(list),
    "final_epoch": st.booleans(),
    "network.name": WORDS,
}
PLAIN = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
IDENTIFIERS = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)


def nested_values(flat: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in flat.items():
        *folders, last = name.split(".")
        place = result
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = value
    return result


def number_of(option: Option) -> st.SearchStrategy[Any]:
    """Any number within an option's bounds, which are like ``0<=x<1``, ``x>=1``, or empty."""
    found = re.fullmatch(r"(?:(?P<low>[\d.e+-]+)<(?P<closed>=?))?x(?:<(?P<below>=?)(?P<high>[\d.]+))?", option.bounds)
    low, high = (float(found[end]) if found and found[end] else other for end, other in (("low", 100), ("high", 65535)))
    if found and option.kind == "float":
        low, high = low + (not found["closed"]) * 0.01, high - (not found["below"]) * 0.01
    return st.integers(int(low), int(high)) if option.kind == "int" else st.floats(low, high)


def values_of(option: Option) -> st.SearchStrategy[Any]:
    """What may stand in a field, whatever the rules between fields."""
    if option.field == "settings":
        return st.fixed_dictionaries({}, optional=SETTING_VALUES).map(nested_values)
    if option.field == "tolerance":
        size = st.floats(0, 9)
        return size | st.lists(size, min_size=2, max_size=3).map(tuple) | st.dictionaries(IDENTIFIERS, size, min_size=1)
    if option.form == "assignments":
        return st.dictionaries(IDENTIFIERS, PLAIN)
    if option.form == "switch":
        return st.booleans()
    if "|" in option.kind:
        return st.sampled_from(option.kind.split("|"))
    one = number_of(option) if option.kind in ("int", "float") else WORDS
    if option.form == "commas" and option.bounds:
        return st.tuples(one, one, one)
    return st.lists(one, min_size=1, max_size=3).map(tuple) if option.form in ("many", "commas") else one


@st.composite
def some_settings(draw: st.DrawFn) -> Settings:
    command = draw(st.sampled_from(COMMANDS))
    data = {}
    for option in options_of(command.settings):
        if not option.shortcut and (option.required or draw(st.booleans())):
            data[option.field] = draw(values_of(option))
    if command.name == "predict":  # one input, and lists of cases with preprocessed ones only
        data.pop("input_path" if "npy_path" in data else "split", None)
        if "npy_path" not in data:
            data["input_path"] = draw(WORDS)
            data.pop("cases", None)
    if command.name in ("check-method", "check-network"):
        data = {"name": draw(WORDS)} if draw(st.booleans()) else {"plugin": draw(WORDS)}
    if command.name == "phantom" and data.get("preset", "amos") == "amos":
        data |= {"cases": 10, "unlabeled": 0}
    return command.settings.model_validate(data)


@settings(max_examples=300, deadline=None)
@given(some_settings())
def test_the_command_line_of_any_settings_makes_them_again(made: Settings) -> None:
    assert parsed(to_argv(made)) == made
    assert shlex.split(command_line(made))[-len(to_argv(made)) :] == to_argv(made)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(IDENTIFIERS, PLAIN | st.lists(PLAIN, max_size=3)))
def test_values_written_as_texts_are_read_again(values: dict[str, Any]) -> None:
    assert assignments(assignment_texts(values), "--set") == (values, [])


def test_only_what_differs_is_written() -> None:
    from duomod.training.settings import TrainSettings

    made = TrainSettings(model="cps", data_path=Path("d"), output_dir=Path("o o"), resume=True, gpu="")
    text = command_line(made)
    assert text.endswith("duomod train --data_path d --model cps --output_dir 'o o' --gpu '' --resume")


@pytest.mark.parametrize("on_path", [True, False])
def test_a_command_that_is_said_runs_this_duomod(
    on_path: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell finds ``duomod`` beside this Python, or does not find it, or finds another one."""
    program = tmp_path / "bin" / "duomod"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    if on_path:
        monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    text = runnable(["duomod", "settings", "train"])
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True)
    assert (text == "duomod settings train") is on_path
    assert done.returncode == (3 if on_path else 0)
    assert ("--data_path" in done.stdout) is not on_path


def test_names_of_settings_lead_to_all_of_them() -> None:
    assert {"max_epochs", "optim.base_lr", "validation.every_epochs"} <= set(leaf_names(TrainConfig))


def test_typed_texts_and_files_say_the_same() -> None:
    command = next(command for command in COMMANDS if command.name == "evaluate")
    typed = settings_from(command, {"pred_path": "p", "gt_path": "t", "metrics": "dice, nsd", "tolerance": "a=1,b=2"})
    written = {"pred_path": "p", "gt_path": "t", "metrics": ["dice", "nsd"], "tolerance": {"a": 1, "b": 2}}
    assert typed == command.settings.model_validate(written)


def test_choices_are_those_of_the_code() -> None:
    from duomod.evaluation.metrics import ASD_VARIANTS
    from duomod.evaluation.policy import POLICIES
    from duomod.evaluation.settings import AsdVariant, PolicyName

    assert list(get_args(AsdVariant)) == list(ASD_VARIANTS)
    assert list(get_args(PolicyName)) == list(POLICIES)
