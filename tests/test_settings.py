"""A wrong setting is told by its name, in words, with the name that was probably meant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, model_validator

from duomod.config import train_config
from duomod.errors import InputError
from duomod.settings import Settings, checked


class Inner(Settings):
    size: int = Field(1, ge=1)


class Outer(Settings):
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()
    point: tuple[int, int] = (0, 0)
    name: str

    @model_validator(mode="after")
    def _two_rules(self) -> Outer:
        if self.name == "bad":
            raise ValueError("first rule\nsecond rule")
        return self


@pytest.mark.parametrize(
    ("data", "problems"),
    [
        ({}, ["f.yaml: name: is needed"]),
        ({"name": "x", "sise": 1}, ["f.yaml: sise: no such setting. The list: duomod x"]),
        (
            {"name": "x", "size": 2},
            ["f.yaml: size: no such setting. Did you mean 'inner.size'? The list: duomod x"],
        ),
        (
            {"name": "x", "inner": {"sice": 2}},
            ["f.yaml: inner.sice: no such setting. Did you mean 'inner.size'? The list: duomod x"],
        ),
        (
            {"name": 3, "many": [{}, {"size": 0}], "point": [1]},
            [
                "f.yaml: many.1.size: 0: should be greater than or equal to 1",
                "f.yaml: point.1: too few values",
                "f.yaml: name: 3 is no text; put quotes around it",
            ],
        ),
        ({"name": "x", "inner": {"size": "y"}}, ["f.yaml: inner.size: 'y': should be a valid integer"]),
        ({"name": "bad"}, ["f.yaml: first rule", "f.yaml: second rule"]),
    ],
)
def test_every_problem_is_a_line(data: dict[str, Any], problems: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        checked(Outer, data, source="f.yaml: ", see="duomod x")
    assert list(caught.value.problems) == problems


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Inner().size = 2  # type: ignore[misc]


def test_a_training_setting_and_a_preset() -> None:
    with pytest.raises(InputError, match=r"setting optim\.sped: no such setting\..* The list: duomod settings train"):
        train_config("default", {"optim": {"sped": 1}})
    with pytest.raises(InputError, match=r"Did you mean 'compact'"):
        train_config("compat")


class Numbers(Settings):
    ratio: float | None = None
    count: int = 1
    three: tuple[float, float, float] = (1, 1, 1)
    switch: bool = False
    text: str = ""
    path: Path = Path("x")
    paths: tuple[Path, ...] = ()
    inner: Inner = Inner()
    free: Mapping[str, Any] = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"ratio": float("nan")}, "finite"),
        ({"ratio": "1e999"}, "finite"),
        ({"ratio": "5%"}, "number"),
        ({"three": [1, 1, float("inf")]}, "finite"),
        ({"three": [1, True, 1]}, "True: should be a number"),
        ({"count": True}, "True: should be a number"),
        ({"count": 2.5}, "integer"),
        ({"count": "9" * 5000}, "longer than"),
        ({"count": "9" * 30}, "too large"),
        ({"count": 10**5000}, "too large"),
        ({"free": {"a": [10**30]}}, "too large"),
        ({"text": "a\x00b"}, r"'a\x00b' holds a control character"),
        ({"text": "x" * 5000}, "longer than 4,096 characters"),
        ({"text": 3}, "3 is no text; put quotes around it"),
        ({"path": ""}, "is empty"),
        ({"path": "a\rb"}, "control character"),
        ({"paths": ["a", " "]}, "is empty"),
        ({"free": {"a": {"b": "\x1b[2J"}}}, "control character"),
        ({"inner": {1: 2}}, "inner: 1: should be the name of a setting"),
        ([1], "should be a mapping of names to values"),
    ],
)
def test_what_no_setting_can_be(data: Any, said: str) -> None:
    with pytest.raises(InputError) as caught:
        checked(Numbers, data, source="f.yaml: ")
    (line,) = caught.value.problems
    assert said in line
    assert line.isprintable()
    assert len(line) < 400


def test_the_home_folder_may_be_written_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    made = Numbers.model_validate({"path": "~/data", "paths": ["~", "~nobody-of-this-name/x", "a~"], "text": "~"})
    assert made.path == Path("/home/me/data")
    assert made.paths == (Path("/home/me"), Path("~nobody-of-this-name/x"), Path("a~"))
    assert made.text == "~"
    assert (made.ratio, Numbers(ratio=1).ratio, Numbers(switch=True).switch) == (None, 1.0, True)
