"""How the viewer shows a case in a real Chromium, opened from disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import assert_nothing_can_be_sent

from duomod.report.viewer.server import make_server


def test_from_its_server_it_shows_everything_and_sends_nothing(page_folder: Path, browser: Any) -> None:
    page = browser.page
    with make_server(page_folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page.goto(server.url)
        page.wait_for_selector(".dv canvas")
        assert server.token not in page.url
        assert server.token not in page.evaluate("document.cookie")
        # Opened again, by the cookie.
        page.reload()
        page.wait_for_function("() => document.querySelector('.dv-scene')?.data?.length")
        page.wait_for_selector(".dv-scene .modebar-btn", state="attached")
        assert browser.errors == []
        assert browser.requests == []
        assert_nothing_can_be_sent(page)
        server.shutdown()


class TestInTheBrowser:
    @pytest.fixture
    def page(self, page_folder: Path, browser: Any) -> Iterator[Any]:
        browser.page.goto((page_folder / "index.html").as_uri())
        browser.page.wait_for_selector(".dv canvas")
        yield browser.page
        assert browser.errors == []
        assert browser.requests == []

    @staticmethod
    def pixels(page: Any, plane: int) -> np.ndarray:
        """A plane's picture, (height, width, 3)."""
        width, height, values = page.eval_on_selector_all(
            ".dv-canvas canvas",
            f"""all => {{ const c = all[{plane}];
                return [c.width, c.height, [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data]]; }}""",
        )
        return np.asarray(values, np.uint8).reshape(height, width, 4)[..., :3]

    @staticmethod
    def slices(page: Any) -> list[int]:
        texts = page.eval_on_selector_all(".dv-slice", "all => all.map(one => one.textContent)")
        return [int(text.split("/")[0]) for text in texts]

    def coloured(self, page: Any, plane: int) -> np.ndarray:
        """Relative (row, column) of the middle of what has colour."""
        picture = self.pixels(page, plane).astype(int)
        where = np.argwhere(picture.max(axis=2) - picture.min(axis=2) > 40)
        assert len(where)
        middle: np.ndarray = where.mean(axis=0) / picture.shape[:2]
        return middle

    def test_planes_are_drawn_and_the_patient_s_right_is_on_the_left(self, page: Any) -> None:
        page.select_option(".dv-tools select", "truth")
        # The liver lies on the right (x 28 to 41 of 50) and a little to the back (y 10 to 23 of 40).
        for plane in (0, 1):
            assert self.coloured(page, plane)[1] < 0.5
        row, _ = self.coloured(page, 0)
        assert row > 0.5
        _, column = self.coloured(page, 2)
        assert column > 0.5  # sagittal: front on the left, back on the right
        letters = page.eval_on_selector_all(".dv-letter", "all => all.map(one => one.textContent).join('')")
        assert letters == "RLAPRLSIAPSI"

    def test_a_slider_moves_its_slice_and_the_crosshair_of_the_others(self, page: Any) -> None:
        before = self.pixels(page, 1)
        page.eval_on_selector(
            "input[aria-label='Axial slice']", "range => { range.value = 3; range.dispatchEvent(new Event('input')); }"
        )
        assert self.slices(page)[0] == 4
        assert (self.pixels(page, 1) != before).any()

    def test_keys_move_slices_planes_and_overlays(self, page: Any) -> None:
        page.locator(".dv-canvas canvas").first.focus()
        start = self.slices(page)
        for key, plane, by in (("PageUp", 0, 1), ("ArrowUp", 1, 1), ("ArrowLeft", 2, 1), ("PageDown", 0, -1)):
            now = self.slices(page)
            page.keyboard.press(key)
            assert self.slices(page)[plane] == now[plane] + by, key
        page.keyboard.press("Home")
        assert self.slices(page) == start
        page.keyboard.press("2")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("Coronal")
        shown = self.pixels(page, 0)
        page.keyboard.press("o")
        plain = self.pixels(page, 0)
        assert (plain != shown).any()
        assert (plain[..., 0] == plain[..., 2]).all(), "without overlay everything is grey"
        page.keyboard.press("e")
        assert page.input_value(".dv-tools select") == "errors"
        page.keyboard.press("+")
        page.keyboard.press("?")
        assert page.is_visible(".dv-help")

    def test_the_wheel_scrolls_the_page_until_a_plane_is_chosen(self, page: Any) -> None:
        page.locator(".dv-canvas canvas").first.hover()
        before = self.slices(page)
        page.mouse.wheel(0, 30)
        page.wait_for_timeout(100)
        assert self.slices(page) == before
        page.focus(".dv-canvas canvas")
        page.mouse.wheel(0, -30)
        page.wait_for_function(f"document.querySelector('.dv-slice').textContent !== '{before[0]} / 30'")
        assert self.slices(page)[1:] == before[1:]

    def test_errors_are_explained_while_they_are_shown(self, page: Any) -> None:
        assert not page.is_visible(".dv-legend")
        page.select_option(".dv-tools select", "errors")
        assert page.inner_text(".dv-legend").split("\n") == [
            "missed (hatched)",
            "too much (filled)",
            "another organ (both)",
        ]
        page.select_option(".dv-tools select", "truth")
        assert not page.is_visible(".dv-legend")

    def test_errors_differ_in_pattern_not_only_in_colour(self, page: Any) -> None:
        page.select_option(".dv-tools select", "errors")
        page.uncheck("input[aria-label='Show gallbladder']")
        page.eval_on_selector(
            "input[aria-label='Overlay opacity']", "r => { r.value = 1; r.dispatchEvent(new Event('input')); }"
        )
        picture = self.pixels(page, 0).astype(int)
        blue = picture[..., 2] - picture[..., 0] > 60
        orange = picture[..., 0] - picture[..., 2] > 60

        def share(mask: np.ndarray) -> float:
            """Of the pixels inside the mask's box."""
            rows, columns = np.nonzero(mask)
            box = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            return float(box[2:-2, 2:-2].mean())

        assert 0.2 < share(blue) < 0.7
        assert share(orange) > 0.9

    def test_the_organ_list_has_volumes_and_jumps_to_the_organ(self, page: Any) -> None:
        rows = page.eval_on_selector_all(
            ".dv-organs tbody tr", "rows => rows.map(r => [...r.cells].map(c => c.textContent))"
        )
        assert rows == [["liver", "7.06", "7.06", "0.857"], ["gallbladder", "0.24", "0", "0.000"]]
        page.click("text=gallbladder")
        # Its centre: z 10 to 13, y 25 to 29, x 30 to 33 less the 3 that are cut off; slices are counted from 1.
        axial, coronal, sagittal = self.slices(page)
        assert axial in (12, 13)
        assert coronal == 28
        assert sagittal in (29, 30)

    def test_a_hidden_organ_is_not_drawn(self, page: Any) -> None:
        page.select_option(".dv-tools select", "truth")
        page.uncheck("input[aria-label='Show liver']")
        page.uncheck("input[aria-label='Show gallbladder']")
        picture = self.pixels(page, 0)
        assert (picture[..., 0] == picture[..., 2]).all()

    def test_window_presets_change_the_grey_values(self, page: Any) -> None:
        page.select_option(".dv-tools select >> nth=0", "none")
        before = self.pixels(page, 0)
        page.locator(".dv-tools select").nth(1).select_option(label="Lung")
        assert (self.pixels(page, 0) != before).any()
        assert page.input_value("input[aria-label='Window width']") == "1500"

    def test_surfaces_of_truth_and_prediction_are_there(self, page: Any) -> None:
        page.wait_for_function("() => document.querySelector('.dv-scene')?.data?.length")
        names = page.evaluate("document.querySelector('.dv-scene').data.map(trace => trace.name)")
        assert names == ["liver, prediction", "liver, truth", "gallbladder, truth"]
        counts = page.evaluate("document.querySelector('.dv-scene').data.map(t => [t.x.length, Math.max(...t.i)])")
        assert all(points > 20 and last < points for points, last in counts)

    def test_a_press_on_a_plane_moves_the_crosshair_there(self, page: Any) -> None:
        box = page.locator(".dv-canvas canvas").first.bounding_box()
        page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
        _, coronal, sagittal = self.slices(page)
        assert coronal in (20, 21)
        assert sagittal in (24, 25)
        assert "truth: background" in page.inner_text(".dv-readout")
