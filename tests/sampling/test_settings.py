"""Lists of transforms as settings: read, changed, refused; the settings of version 0.1; transforms from outside."""

from __future__ import annotations

import importlib
import re
import sys
import textwrap
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from duomod import plugins
from duomod.commands import PageSettings
from duomod.config import AugmentConfig, TrainConfig, train_config
from duomod.errors import InputError
from duomod.option_values import assignments
from duomod.sampling.settings import TransformList
from duomod.sampling.transforms.base import PatchInfo
from duomod.sampling.transforms.registry import TRANSFORMS, builtin_names
from duomod.seeding import generator
from duomod.settings_page import run_settings

PAGE = Path(__file__).parents[2] / "docs" / "augmentation.md"


def names(config: TransformList) -> list[str]:
    return [transform.name for transform in config.transforms]


def one(config: TransformList, name: str) -> dict[str, Any]:
    (found,) = [transform for transform in config.transforms if transform.name == name]
    return found.model_dump()


def typed(changes: list[str]) -> dict[str, Any]:
    """Changes as a command line has them."""
    values, problems = assignments(changes, "--set")
    assert not problems
    return values


class TestReading:
    def test_a_list_in_yaml_is_read_in_its_order(self) -> None:
        text = """
            augment:
              - gamma
              - {name: flip_y, probability: 0.25}
              - name: affine
                rotate_degrees: 5
        """
        config = train_config("default", yaml.safe_load(text)).augment
        assert names(config) == ["gamma", "flip_y", "affine"]
        assert one(config, "flip_y")["probability"] == 0.25
        assert one(config, "affine")["rotate_degrees"] == 5
        assert config.draws == "own"

    def test_the_command_line_sets_the_list(self) -> None:
        changes = typed(["augment=[flip_y, {name: gamma, amount: 0.2}]"])
        assert names(train_config("compact", changes).augment) == ["flip_y", "gamma"]
        changes = typed(["augment.transforms=[gamma]"])
        assert names(train_config("reference", changes).augment) == ["gamma"]

    def test_what_is_written_is_read_again(self) -> None:
        for preset in ("default", "reference", "compact"):
            config = train_config(preset)
            assert TrainConfig.model_validate(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))) == config

    def test_presets(self) -> None:
        assert names(train_config("default").augment) == ["flip_x"]
        assert names(train_config("reference").augment) == ["flip_x", "flip_y"]
        assert names(train_config("compact").augment) == ["affine", "contrast", "brightness", "gamma", "gaussian_noise"]

    @pytest.mark.parametrize(
        ("augment", "words"),
        [
            (["flipx"], "unknown transform 'flipx'. Did you mean 'flip_x'? Known: affine"),
            (
                [{"name": "affine", "rotate": 3}],
                "affine: rotate: no such setting. Did you mean 'rotate_degrees'? The list: duomod settings affine",
            ),
            ([{"name": "affine", "scale": 2}], "affine: scale: 2: should be less than 1"),
            ([{"probability": 1}], "{'probability': 1} is no transform: give its name"),
            ([3], "3 is no transform"),
            ({"rotate_degree": 3}, "unknown setting 'rotate_degree'. Did you mean 'rotate_degrees'? Known: transforms"),
            ({"gama": {"amount": 1}}, "Did you mean 'gamma'?"),
            ({"gamma": 3}, "gamma: give its parameters, true or false, not 3"),
            ({"intensity": 3}, "intensity: must be a number from 0 to 1, not 3"),
            ({"transforms": "gamma", "flip_y": True}, "transforms: must be a list"),
            ({"transforms": ["gamma", "gamma"], "gamma": {"amount": 1}}, "gamma: stands in the list 2 times"),
        ],
    )
    def test_a_mistake_is_explained(self, augment: Any, words: str) -> None:
        with pytest.raises(InputError) as caught:
            train_config("default", {"augment": augment})
        assert words in str(caught.value)
        assert "augment" in str(caught.value)

    def test_all_mistakes_are_named_at_once(self) -> None:
        wrong = ["flipx", {"name": "affine", "scale": 2, "zoom": 1}, {"name": "gamma", "amount": -1}]
        with pytest.raises(InputError) as caught:
            train_config("default", {"augment": wrong})
        for words in ("flipx", "affine: scale", "affine: zoom", "gamma: amount"):
            assert words in str(caught.value)


class TestChangesByName:
    def test_one_transform_of_a_preset_is_changed_in_its_place(self) -> None:
        config = train_config("compact", typed(["augment.gamma.amount=0.4"])).augment
        assert names(config) == names(train_config("compact").augment)
        assert one(config, "gamma")["amount"] == 0.4
        assert one(config, "contrast")["amount"] == 0.09

    def test_a_new_one_comes_last_and_one_that_is_off_goes(self) -> None:
        config = train_config("compact", typed(["augment.smooth_field=true", "augment.affine=false"]))
        assert names(config.augment) == ["contrast", "brightness", "gamma", "gaussian_noise", "smooth_field"]


class TestSettingsOfVersion01:
    """``augment`` was six settings; they still change the list."""

    def test_each_of_them(self) -> None:
        old = {
            "flip_x": "plain",
            "flip_y": True,
            "rotate_degrees": 12.0,
            "scale": 0.2,
            "affine_probability": 0.4,
            "intensity": 0.5,
        }
        config = AugmentConfig.model_validate(old)
        assert names(config) == ["affine", "flip_x", "contrast", "brightness", "gamma", "gaussian_noise", "flip_y"]
        affine = {"name": "affine", "probability": 0.4, "rotate_degrees": 12.0, "scale": 0.2}
        assert one(config, "affine") == affine
        assert one(config, "flip_x")["labels"] == "plain"
        assert one(config, "contrast")["amount"] == pytest.approx(0.15)
        assert one(config, "brightness")["amount"] == pytest.approx(0.075)
        assert one(config, "gamma")["amount"] == pytest.approx(0.25)
        assert one(config, "gaussian_noise")["sigma"] == pytest.approx(0.025)
        assert one(config, "gaussian_noise")["probability"] == 0.5

    def test_nothing_is_nothing(self) -> None:
        nothing = {"flip_x": "none", "flip_y": False, "rotate_degrees": 0, "scale": 0.0, "affine_probability": 0.0}
        assert names(train_config("compact", {"augment": {**nothing, "intensity": 0}}).augment) == []

    def test_one_alone_changes_the_preset(self) -> None:
        config = train_config("compact", typed(["augment.rotate_degrees=20"])).augment
        assert one(config, "affine") == {"name": "affine", "probability": 0.3, "rotate_degrees": 20, "scale": 0.1}
        assert names(config) == names(train_config("compact").augment)

    def test_the_probability_was_zero_where_no_rotation_was_set_and_still_is(self) -> None:
        config = train_config("default", typed(["augment.rotate_degrees=20"])).augment
        assert one(config, "affine") == {"name": "affine", "probability": 0.0, "rotate_degrees": 20, "scale": 0.0}

    @pytest.mark.parametrize(
        ("preset", "written"),
        [
            ("default", ("swap_sides", False, 0.0, 0.0, 0.0, 0.0)),
            ("reference", ("plain", True, 0.0, 0.0, 0.0, 0.0)),
            ("compact", ("none", False, 10.0, 0.1, 0.3, 0.3)),
        ],
    )
    def test_what_a_run_folder_of_a_preset_holds_is_that_preset(self, preset: str, written: tuple[Any, ...]) -> None:
        keys = ("flip_x", "flip_y", "rotate_degrees", "scale", "affine_probability", "intensity")
        old = dict(zip(keys, written, strict=True))
        assert train_config(preset, {"augment": old}) == train_config(preset)


class TestEntryPoints:
    """A transform of the user's: the module ``duomod_mine`` on the path, and entry points that name it."""

    @pytest.fixture(autouse=True)
    def installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "duomod_mine.py").write_text(
            textwrap.dedent(
                '''
                from dataclasses import dataclass
                from typing import Literal

                from duomod.sampling.transforms.base import IntensityChange, Transform


                @dataclass(frozen=True)
                class Inverted(IntensityChange):
                    def change(self, image):
                        return 1 - image


                class Invert(Transform):
                    """Black becomes white."""

                    name: Literal["invert"] = "invert"

                    def draw(self, rng, patch):
                        return Inverted()
                '''
            )
        )
        (tmp_path / "duomod_broken.py").write_text("import no_such_package\n")
        monkeypatch.syspath_prepend(tmp_path)
        points = [
            EntryPoint("invert", "duomod_mine:Invert", TRANSFORMS.group),
            EntryPoint("broken", "duomod_broken:Broken", TRANSFORMS.group),
            EntryPoint("number", "math:pi", TRANSFORMS.group),
            EntryPoint("misnamed", "duomod_mine:Invert", TRANSFORMS.group),
        ]
        monkeypatch.setattr(plugins, "entry_points", lambda group: [p for p in points if p.group == group])
        yield
        sys.modules.pop("duomod_mine", None)

    def test_it_can_be_named_in_the_list_beside_ours(self) -> None:
        config = train_config("default", {"augment": ["flip_y", {"name": "invert", "probability": 0.2}]}).augment
        assert names(config) == ["flip_y", "invert"]
        assert one(config, "invert")["probability"] == 0.2

    def test_a_broken_one_is_reported_by_name_and_stops_nothing_else(self, capsys: pytest.CaptureFixture[str]) -> None:
        found = TRANSFORMS.available()
        assert {"invert", "affine", "gamma"} <= set(found)
        assert not {"broken", "number", "misnamed"} & set(found)
        said = "".join(capsys.readouterr())
        for name in ("broken", "number", "misnamed"):
            assert f"transform '{name}'" in said
        assert names(train_config("default", {"augment": ["invert"]}).augment) == ["invert"]

    def test_the_list_of_transforms_has_it_and_names_the_broken_ones(self, capsys: pytest.CaptureFixture[str]) -> None:
        (section,) = run_settings(PageSettings(name="transforms"))
        meanings = {row.name: row.meaning for row in section.rows}
        assert meanings["invert"] == "Black becomes white."
        assert meanings["gamma.amount"]
        assert "broken" not in meanings
        assert "transform 'broken'" in "".join(capsys.readouterr())
        (one_of_them,) = run_settings(PageSettings(name="invert"))
        assert [row.name for row in one_of_them.rows] == ["invert", "invert.probability"]

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("broken", "transform 'broken' from the package entry point duomod_broken:Broken is broken: No module"),
            ("number", "must name a subclass of duomod.sampling.transforms.base.Transform"),
            ("misnamed", "must have the field  name: Literal['misnamed'] = 'misnamed'"),
        ],
    )
    def test_naming_a_broken_one_says_what_is_wrong(self, name: str, words: str) -> None:
        with pytest.raises(InputError) as caught:
            TRANSFORMS.load(name)
        assert words in str(caught.value)
        with pytest.raises(InputError, match=name):
            train_config("default", {"augment": [name]})


class TestPage:
    """docs/augmentation.md."""

    text = PAGE.read_text(encoding="utf-8")

    def test_a_transform_in_the_table_has_the_parameters_that_stand_there(self) -> None:
        rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", self.text, flags=re.MULTILINE))
        assert len(rows) >= 10
        assert set(rows) <= set(builtin_names())
        for name, row in rows.items():
            parameters = [key for key in TRANSFORMS.load(name).model_fields if key not in ("name", "probability")]
            assert re.findall(r"`(\w+)` \(", row) == parameters

    def test_its_list_is_read(self) -> None:
        (block,) = re.findall(r"^```yaml\n(.*?)^```", self.text, flags=re.DOTALL | re.MULTILINE)
        config = train_config("default", yaml.safe_load(block)).augment
        assert names(config) == ["affine", "flip_y", "flip_x", "gamma"]

    def test_its_command_line_changes_are_read(self) -> None:
        changes = [text.strip('"') for text in re.findall(r"`--set (\".*?\"|\S+?)`", self.text)]
        assert len(changes) == 4
        for change in changes:
            train_config("compact", typed([change]))

    def test_its_transform_works(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        block = re.findall(r"^```python\n(.*?)^```", self.text, flags=re.DOTALL | re.MULTILINE)[-1]
        (tmp_path / "page_invert.py").write_text(block)
        monkeypatch.syspath_prepend(tmp_path)
        image = torch.rand(1, 4, 4, 4)
        drawn = importlib.import_module("page_invert").Invert().draw(generator(0, "test"), PatchInfo())
        changed, _ = drawn.apply(image, None)
        torch.testing.assert_close(changed, (1 - drawn.share) * image + drawn.share * (1 - image))
