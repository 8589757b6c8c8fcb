"""``duomod settings`` lists everything, and docs/settings.md is what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from duomod.cli import app
from duomod.commands import COMMANDS, PageSettings
from duomod.config import PRESETS, TrainConfig
from duomod.errors import InputError
from duomod.experiments.settings import PipelineConfig
from duomod.methods.dhc import DHCConfig
from duomod.methods.registry import builtin_names
from duomod.settings import leaf_names
from duomod.settings_page import as_markdown, experiment_section, run_settings, training_section

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"


def test_the_page_in_docs_is_what_the_command_prints() -> None:
    made = as_markdown(run_settings(PageSettings())) + "\n"
    assert PAGE.read_text(encoding="utf-8") == made, "run: duomod settings --markdown > docs/settings.md"


def test_without_a_name_all_commands_and_the_training_are_there() -> None:
    titles = {section.title for section in run_settings(PageSettings())}
    assert {f"duomod {command.name}" for command in COMMANDS} <= titles
    assert {"Training settings", "Experiment file", "Method settings"} <= titles


def test_training_settings_with_default_choices_and_what_presets_change() -> None:
    rows = {row.name: row for row in training_section().rows}
    assert set(rows) == set(leaf_names(TrainConfig))
    assert rows["optim.base_lr"].default == "0.03"
    assert rows["optim.base_lr"].values == "x>0"
    assert rows["optim.schedule"].values == "poly, poly_late, one_cycle"
    assert rows["optim.schedule"].presets == {"reference": "poly_late", "compact": "one_cycle"}
    changed = {preset for row in rows.values() for preset in row.presets}
    assert changed == {preset for preset, values in PRESETS.items() if values}


def test_every_setting_of_an_experiment_is_there() -> None:
    names = [row.name.replace("[]", "") for row in experiment_section().rows]
    assert names == list(leaf_names(PipelineConfig))


def test_a_command_and_a_method() -> None:
    [section] = run_settings(PageSettings(name="evaluate"))
    rows = {row.name: row for row in section.rows}
    assert rows["--pred_path"].default == "needed"
    assert rows["--workers"].values == "1<=x<=1024"
    [section] = run_settings(PageSettings(name="dhc"))
    rows = {row.name: row for row in section.rows}
    assert set(rows) == set(DHCConfig.model_fields)
    assert rows["counts_from"].presets == {"reference": "crops"}


@pytest.mark.parametrize("name", builtin_names())
def test_every_method_says_what_its_settings_do(name: str) -> None:
    [section] = run_settings(PageSettings(name=name))
    assert [row.name for row in section.rows if not row.meaning] == []


def test_an_unknown_name_suggests_the_nearest_and_says_where_the_lists_are() -> None:
    with pytest.raises(InputError, match=r"Did you mean 'train'\? The lists: duomod --help, duomod methods"):
        run_settings(PageSettings(name="trian"))


def test_as_json_and_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    app(["settings", "phantom", "--json"], standalone_mode=False)
    [section] = json.loads(capsys.readouterr().out)["sections"]
    assert {"name", "default", "values", "meaning", "presets"} == section["rows"][0].keys()
    app(["settings", "phantom"], standalone_mode=False)
    assert "--unlabeled  0" in capsys.readouterr().out
