"""The report in a real Chromium: it loads without errors or network, draws, sorts, prints and opens cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browsing import assert_nothing_can_be_sent

from duomod.report.page import run_report
from duomod.report.settings import ReportSettings

#: Pixels of a canvas that are neither black nor transparent.
LIT = """canvas => {
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let lit = 0;
  for (let i = 0; i < data.length; i += 4) lit += data[i + 3] > 0 && data[i] + data[i + 1] + data[i + 2] > 30;
  return lit;
}"""


@pytest.fixture(scope="module")
def address(study: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return run_report(
        ReportSettings(runs=(study / "runs",), output=tmp_path_factory.mktemp("page") / "report")
    ).as_uri()


def column(page: Any, table: str, index: int) -> list[str]:
    found: list[str] = page.eval_on_selector_all(
        f"{table} tbody tr", f"rows => rows.map(row => row.cells[{index}].textContent)"
    )
    return found


def test_it_loads_and_draws_every_chart_without_errors_or_network(address: str, browser: Any) -> None:
    page = browser.page
    page.goto(address)
    charts = page.query_selector_all("[data-chart]:not([hidden])")
    assert len(charts) == 9
    for chart in charts:
        chart.scroll_into_view_if_needed()
        page.wait_for_function("chart => chart.querySelector('.main-svg') !== null", arg=chart)
    drawn = page.eval_on_selector_all(
        "[data-chart]:not([hidden])", "all => all.map(c => c.querySelectorAll('path').length)"
    )
    assert min(drawn) > 0
    assert browser.errors == []
    assert browser.requests == []
    assert_nothing_can_be_sent(page)


def test_a_click_sorts_by_value_and_a_second_one_turns_it_round(address: str, browser: Any) -> None:
    page = browser.page
    page.goto(address)
    table = "#summary table"
    assert column(page, table, 0) == ["cps", "duomodnet", "supervised"]
    button = page.locator("#summary thead button").nth(2)
    assert button.inner_text() == "Dice (%)"
    button.click()
    assert column(page, table, 0) == ["duomodnet", "cps", "supervised"]
    assert page.locator("#summary thead th").nth(2).get_attribute("aria-sort") == "descending"
    button.click()
    assert column(page, table, 0) == ["supervised", "cps", "duomodnet"]


def test_a_list_shows_the_other_charts_of_its_group(address: str, browser: Any) -> None:
    page = browser.page
    page.goto(address)
    page.select_option("select[data-group=box]", "box-ASD")
    page.wait_for_selector("#chart-box-ASD .main-svg")
    assert not page.is_visible("#chart-box-Dice")
    assert browser.errors == []


def test_the_page_fits_a_narrow_screen_and_is_dark_when_the_system_is(address: str, browser: Any) -> None:
    page = browser.page
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 420, "height": 900})
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, background.removeprefix("rgb(").removesuffix(")").split(","))) < 60
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_any_case_opens_in_the_viewer(address: str, browser: Any) -> None:
    page = browser.page
    page.goto(address)
    page.select_option("#viewer-case", label="b")
    page.click("#viewer-open")
    page.wait_for_selector(".dv canvas")
    assert page.get_attribute(".dv", "aria-label") == "Viewer: b"
    assert all(page.eval_on_selector_all(".dv canvas", f"all => all.slice(0, 3).map({LIT})"))
    page.select_option("#viewer-case", label="c")
    page.click("#viewer-open")
    page.wait_for_selector(".dv[aria-label='Viewer: c']")
    assert page.locator(".dv").count() == 1
    assert browser.errors == []
    assert browser.requests == []
