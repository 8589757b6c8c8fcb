"""The facts behind ``duomod methods``: counted, measured, never guessed."""

from __future__ import annotations

import json

import pytest
import torch

from duomod.config import NetworkConfig
from duomod.errors import InputError
from duomod.methods.base import describe_networks
from duomod.methods.catalog import facts as facts_module
from duomod.methods.catalog.costs import Conditions, StepCost, measure, relative
from duomod.methods.catalog.facts import build, facts
from duomod.methods.catalog.listing import listing
from duomod.methods.catalog.measurements import Measurements, RelativeCost, stored_measurements
from duomod.methods.catalog.page import method_page
from duomod.methods.registry import METHODS, builtin_names

SMALL = NetworkConfig(filters=4, levels=3, norm="instance")


def test_full_networks_are_counted_without_their_memory() -> None:
    rows = {row.name: row for row in facts(["supervised", "cps", "mean_teacher"])}
    assert rows["supervised"].trained == rows["supervised"].total == 37_778_192
    assert rows["cps"].trained == rows["cps"].total == 2 * 37_778_192
    assert rows["mean_teacher"].trained == 37_778_192
    assert rows["mean_teacher"].total == 2 * 37_778_192


def test_networks_in_words() -> None:
    rows = {row.name: row.networks for row in facts(["supervised", "cps", "mean_teacher"], SMALL)}
    assert rows == {"supervised": "VNet", "cps": "2 x VNet", "mean_teacher": "VNet + teacher"}


@pytest.mark.parametrize("name", METHODS.names())
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
    with pytest.raises(InputError, match="unknown method 'cpss'"):
        facts(["cpss"])


def test_every_method_was_measured() -> None:
    stored = stored_measurements()
    assert sorted(stored.relative) == builtin_names()
    assert stored.relative["supervised"] == RelativeCost(time=1, memory=1)
    assert "CPU thread" in stored.conditions


def test_what_was_not_measured_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Measurements(relative={"cps": RelativeCost(time=4, memory=3)})
    monkeypatch.setattr(facts_module, "stored_measurements", lambda: one)
    by_name = {row.name: row for row in facts(["cps", "urpc"], SMALL)}
    assert (by_name["cps"].relative_time, by_name["cps"].relative_memory) == (4.0, 3.0)
    assert (by_name["urpc"].relative_time, by_name["urpc"].relative_memory) == (None, None)
    assert "not measured" in method_page("urpc").as_text()


def test_the_listing_has_a_line_and_a_paper_for_every_method() -> None:
    shown = listing()
    lines = shown.as_text().splitlines()
    for name in METHODS.names():
        line = next(line for line in lines if line.startswith(f"{name} "))
        assert load_summary(name) in line
        assert any(line.startswith(f"{name}: ") for line in lines)
    assert stored_measurements().conditions in shown.as_text()
    data = json.loads(json.dumps(shown.as_json()))
    assert [row["name"] for row in data["methods"]] == METHODS.names()


def load_summary(name: str) -> str:
    return facts([name], SMALL)[0].summary


class TestPage:
    """``duomod methods NAME``."""

    @pytest.mark.parametrize("name", builtin_names())
    def test_it_gives_the_paper_the_equations_the_network_and_the_cost(self, name: str) -> None:
        page = method_page(name)
        text = " ".join(page.as_text().split())
        own = page.facts
        assert f"{own.title} ({name}): {own.summary}" in text
        assert own.paper in text
        assert str(own.year) in text
        assert any(sign in page.equations.partition("\n\n")[0] for sign in ("L = ", "CPS whose", "CPS on"))
        assert f"Networks: {own.networks}, {own.trained / 1e6:.1f} M" in text
        assert f"{own.relative_time:.1f} times the time" in text
        assert f"docs/methods/{name}.md" in text
        assert json.loads(json.dumps(page.as_json()))["facts"]["name"] == name

    def test_training_settings_of_the_reference_are_named(self) -> None:
        assert method_page("slcnet").training == {"optim.schedule": "poly", "final_epoch": False}
        assert "optim.clip_gradient = 1.0" in method_page("dycon").as_text()
        assert "preset reference" not in method_page("cps").as_text()

    def test_an_unknown_name_suggests_the_nearest(self) -> None:
        with pytest.raises(InputError, match=r"Did you mean 'duomodnet'\?"):
            method_page("duomod-net")


class TestMeasuring:
    """How the measurements were made."""

    def test_a_step_is_measured_in_a_process_of_its_own(self) -> None:
        before = torch.get_rng_state()
        costs = measure(["cps"], Conditions((16, 16, 16), classes=3, steps=1))
        assert list(costs) == ["supervised", "cps"]
        assert all(cost.milliseconds > 0 for cost in costs.values())
        assert torch.equal(torch.get_rng_state(), before)

    def test_costs_are_relative_to_supervised(self) -> None:
        costs = relative({"supervised": StepCost(100.0, 50.0), "cps": StepCost(400.0, 125.0)})
        assert costs == {"supervised": RelativeCost(time=1, memory=1), "cps": RelativeCost(time=4, memory=2.5)}

    def test_the_stored_ones_were_measured_as_by_default(self) -> None:
        assert stored_measurements().conditions == str(Conditions())
