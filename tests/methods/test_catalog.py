"""The facts behind ``duomod methods``: counted, measured, never guessed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from duomod.config import NetworkConfig
from duomod.errors import InputError
from duomod.methods import catalog
from duomod.methods.catalog import StepCost, build, describe_networks, facts, measure, relative, store_measurements
from duomod.methods.registry import method_names

SMALL = NetworkConfig.model_validate({"filters": 4, "levels": 3, "norm": "instance"})


def test_full_networks_are_counted_without_their_memory() -> None:
    rows = {row.name: row for row in facts(["supervised", "cps", "mean_teacher"])}
    assert rows["supervised"].trained == rows["supervised"].total == 37_778_192
    assert rows["cps"].trained == rows["cps"].total == 2 * 37_778_192
    assert rows["mean_teacher"].trained == 37_778_192
    assert rows["mean_teacher"].total == 2 * 37_778_192


def test_networks_in_words() -> None:
    rows = {row.name: row.networks for row in facts(["supervised", "cps", "mean_teacher"], SMALL)}
    assert rows == {"supervised": "VNet", "cps": "2 x VNet", "mean_teacher": "VNet + teacher"}


@pytest.mark.parametrize("name", method_names())
def test_every_method_presents_itself(name: str) -> None:
    row = facts([name], SMALL, classes=4)[0]
    assert row.name == name
    assert row.title
    assert row.paper
    assert 2010 < row.year < 2100
    assert row.networks == describe_networks(build(name, SMALL, 4))
    assert 0 < row.trained <= row.total
    assert len(row.summary) < 120
    assert "\n" not in row.summary


def test_unknown_methods_are_named() -> None:
    with pytest.raises(InputError, match="unknown model 'cpss'"):
        facts(["cpss"])


def test_relative_to_supervised() -> None:
    costs = {"supervised": StepCost(100.0, 50.0), "cps": StepCost(400.0, 125.0)}
    assert relative(costs)["cps"] == {"time": 4.0, "memory": 2.5}
    assert relative(costs)["supervised"] == {"time": 1.0, "memory": 1.0}


def test_measurements_are_kept_with_their_conditions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "measured.json"
    store_measurements({"supervised": StepCost(10.0, 5.0), "cps": StepCost(40.0, 15.0)}, "two cores", file)
    content = json.loads(file.read_text(encoding="utf-8"))
    assert content["conditions"] == "two cores"
    monkeypatch.setattr(catalog, "stored_measurements", lambda: content)
    by_name = {row.name: row for row in facts(["cps", "urpc"], SMALL)}
    assert (by_name["cps"].relative_time, by_name["cps"].relative_memory) == (4.0, 3.0)
    assert (by_name["urpc"].relative_time, by_name["urpc"].relative_memory) == (None, None)


def test_a_step_is_measured_in_a_process_of_its_own() -> None:
    before = torch.get_rng_state()
    costs = measure(["cps"], network=SMALL, patch=(16, 16, 16), classes=3, steps=1)
    assert list(costs) == ["supervised", "cps"]
    assert all(cost.milliseconds > 0 for cost in costs.values())
    assert torch.equal(torch.get_rng_state(), before)
