"""A wrong setting is told by its name, in words, with the name that was probably meant."""

from __future__ import annotations

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
                "f.yaml: name: 3: should be a valid string",
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
