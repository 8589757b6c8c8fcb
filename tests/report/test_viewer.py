"""The viewer: what is packed for it, how it shows it in a real Chromium, and who its server answers."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from duomod.errors import InputError
from duomod.report.viewer.serve import _titles, make_server, run_view, view_page
from duomod.report.viewer.surfaces import meshes
from duomod.report.viewer.volumes import Overlay, packed, write_case
from duomod.report.settings import ViewSettings



NAMES = ("background", "liver", "gallbladder")
SHAPE = (30, 40, 50)  # z, y, x
SPACING = (1.0, 1.5, 2.0)  # x, y, z in mm


def saved(array: np.ndarray, path: Path, orientation: str = "RAS") -> Path:
    """Write an array given in RAS so that the file is stored in another orientation, at the same place in the world."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    image.SetOrigin((24.0, 30.0, -12.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.DICOMOrient(image, orientation), str(path))
    return path


def content(script: Path) -> tuple[str, dict[str, Any]]:
    """Case id and data in a case's script."""
    text = script.read_text()
    start, end = "DuomodViewer.add(", ");\n"
    assert text.startswith(start)
    assert text.endswith(end)
    case, data = json.loads(f"[{text[len(start) : -len(end)]}]")
    return case, data


def unpacked(text: str, dtype: Any) -> np.ndarray:
    raw = np.frombuffer(gzip.decompress(base64.b64decode(text)), np.uint8)
    if np.dtype(dtype).itemsize == 1:
        return raw
    return np.ascontiguousarray(raw.reshape(2, -1).T).view(np.dtype(dtype).newbyteorder("<")).ravel()


@pytest.fixture(scope="module")
def scan() -> np.ndarray:
    values = np.full(SHAPE, -1000, np.int16)
    values[2:28, 4:36, 5:45] = 40
    return values


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """A liver on the patient's right, and a gallbladder at its front."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[8:20, 10:24, 28:42] = 1
    labels[10:14, 25:30, 30:34] = 2
    return labels


@pytest.fixture(scope="module")
def files(scan: np.ndarray, truth: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    prediction = np.roll(truth, 2, axis=2)
    prediction[prediction == 2] = 0
    return {
        "scan": saved(scan, folder / "scan.nii.gz", "LPS"),
        "truth": saved(truth, folder / "truth.nii.gz", "LPS"),
        "prediction": saved(prediction, folder / "prediction.nii.gz", "LPS"),
    }


class TestVolumes:
    @pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "SAL"])
    def test_every_orientation_is_turned_to_the_same_volume(
        self, orientation: str, scan: np.ndarray, truth: np.ndarray, tmp_path: Path
    ) -> None:
        image = saved(scan, tmp_path / "scan.nii.gz", orientation)
        labels = saved(truth, tmp_path / "truth.nii.gz", orientation)
        write_case(tmp_path / "a.js", "a", image, labels, [], NAMES, modality="CT")
        case, data = content(tmp_path / "a.js")
        assert case == "a"
        # x begins 25 mm before the liver: 3 voxels are cut off.
        assert data["size"] == [47, 40, 30]
        assert data["spacing"] == pytest.approx(SPACING)
        np.testing.assert_array_equal(unpacked(data["maps"][0]["data"], np.uint8).reshape(30, 40, 47), truth[:, :, 3:])
        shown = unpacked(data["image"]["data"], np.int16).reshape(30, 40, 47)
        np.testing.assert_array_equal(shown, scan[:, :, 3:])
        # The first voxel in RAS mm: ITK's world (LPS) with x and y turned round.
        assert [row[3] for row in data["affine"]] == pytest.approx([-21.0, -30.0, -12.0])

    def test_volumes_and_dice_come_from_the_full_grid(self, files: dict[str, Path], tmp_path: Path) -> None:
        overlay = Overlay("mine", files["prediction"])
        summary = write_case(
            tmp_path / "a.js", "a", files["scan"], files["truth"], [overlay], NAMES, modality="CT", max_voxels=5000
        )
        assert summary.truth is not None
        voxel_ml = 1.0 * 1.5 * 2.0 / 1000
        assert summary.truth.ml == pytest.approx([12 * 14 * 14 * voxel_ml, 4 * 5 * 4 * voxel_ml])
        # Shifted by 2 of 14 voxels: 12 are common.
        assert summary.predictions[0].dice == pytest.approx([12 / 14, 0.0])
        assert np.prod(summary.size) <= 5000
        assert any("All numbers come from the scan's grid" in note for note in summary.notes)

    def test_a_large_scan_is_cut_to_the_labelled_region(self, tmp_path: Path) -> None:
        labels = np.zeros((100, 100, 100), np.uint8)
        labels[50:52, 50:52, 50:52] = 1
        image = saved(np.zeros(labels.shape, np.int16), tmp_path / "scan.nii.gz")
        summary = write_case(
            tmp_path / "a.js", "a", image, saved(labels, tmp_path / "t.nii.gz"), [], NAMES, modality="MR"
        )
        # 25 mm on either side of 2 voxels
        assert summary.size == (52, 2 + 2 * 17, 2 + 2 * 13)

    def test_the_same_case_gives_the_same_file(self, files: dict[str, Path], tmp_path: Path) -> None:
        for name in ("a", "b"):
            write_case(tmp_path / f"{name}.js", "x", files["scan"], files["truth"], [], NAMES, modality="CT")
        assert (tmp_path / "a.js").read_bytes() == (tmp_path / "b.js").read_bytes()

    def test_every_wrong_grid_is_named_and_nothing_is_written(
        self, files: dict[str, Path], truth: np.ndarray, tmp_path: Path
    ) -> None:
        small = saved(truth[1:], tmp_path / "small.nii.gz")
        moved = saved(truth, tmp_path / "moved.nii.gz")
        image = sitk.ReadImage(str(moved))
        image.SetSpacing((1, 1, 1))
        sitk.WriteImage(image, str(moved))
        with pytest.raises(InputError) as caught:
            write_case(tmp_path / "a.js", "a", files["scan"], small, [Overlay("moved", moved)], NAMES, modality="CT")
        assert len(caught.value.problems) == 2
        assert "small.nii.gz: lies on another grid than the scan" in caught.value.problems[0]
        assert "spacing" in caught.value.problems[1]
        assert not (tmp_path / "a.js").exists()

    def test_one_extreme_voxel_does_not_take_the_levels_from_all_others(self, tmp_path: Path) -> None:
        values = np.random.default_rng(0).normal(100, 20, SHAPE).astype(np.float32)
        values[3, 4, 5] = 1e6
        write_case(tmp_path / "a.js", "a", saved(values, tmp_path / "scan.nii.gz"), None, [], NAMES, modality="MR")
        image = content(tmp_path / "a.js")[1]["image"]
        stored = unpacked(image["data"], np.int16).reshape(SHAPE)
        restored = stored * image["slope"] + image["intercept"]
        others = values < 1e6
        np.testing.assert_allclose(restored[others], values[others], atol=0.5)
        # The extreme one is marked as clipped.
        assert image["ends"] == [None, stored[3, 4, 5]]
        assert not image["exact"]

    def test_a_file_s_place_in_the_world_is_what_nibabel_reads(self, tmp_path: Path) -> None:
        """Another library as oracle, on a tilted grid whose axes run to the left, bottom and front."""
        angle = np.radians(12)
        tilt = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        affine = np.eye(4)
        affine[:3, :3] = tilt @ np.array([[-1, 0, 0], [0, 0, 1], [0, -1, 0]]) @ np.diag([1.2, 1.5, 2.0])
        affine[:3, 3] = [35, -30, 40]
        labels = np.zeros((60, 50, 30), np.uint8)
        labels[44:47, 9:12, 20:23] = 1  # 45 * 1.2 mm to the left, 10 * 1.5 mm down, 21 * 2 mm forwards
        nibabel.save(nibabel.Nifti1Image(labels.astype(np.int16), affine), tmp_path / "scan.nii.gz")
        nibabel.save(nibabel.Nifti1Image(labels, affine), tmp_path / "truth.nii.gz")
        summary = write_case(
            tmp_path / "a.js", "a", tmp_path / "scan.nii.gz", tmp_path / "truth.nii.gz", [], NAMES, modality="CT"
        )
        data = content(tmp_path / "a.js")[1]
        (centre, _) = data["maps"][0]["centres"]
        shown = np.asarray(data["affine"]) @ [*centre, 1]
        np.testing.assert_allclose(shown, (affine @ [45, 10, 21, 1])[:3], atol=1e-3)
        assert any("tilted by 12°" in note for note in summary.notes)

    def test_packing_keeps_every_value(self) -> None:
        values = np.random.default_rng(0).integers(-(2**15), 2**15, 1000).astype(np.int16)
        np.testing.assert_array_equal(unpacked(packed(values), np.int16), values)


class TestSurfaces:
    def test_a_ball_s_surface_has_its_size_and_place(self) -> None:
        z, y, x = np.indices((40, 40, 40))
        ball = ((z * 2 - 40) ** 2 + (y * 1.5 - 30) ** 2 + (x - 20) ** 2 < 12**2).astype(np.uint8)
        (mesh,) = meshes(ball, SPACING, 2)
        assert mesh is not None
        np.testing.assert_allclose(mesh.vertices.mean(axis=0), [20, 30, 40], atol=0.5)
        radii = np.linalg.norm(mesh.vertices - [20, 30, 40], axis=1)
        assert radii.mean() == pytest.approx(12, abs=0.6)
        # Closed and facing outwards: the signed volume is that of the ball.
        corners = mesh.vertices[mesh.triangles].astype(float)
        volume = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
        assert volume == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.06)

    def test_one_voxel_has_a_surface_and_an_absent_class_has_none(self) -> None:
        labels = np.zeros((9, 9, 9), np.uint8)
        labels[4, 4, 4] = 2
        first, second = meshes(labels, SPACING, 3)
        assert first is None
        assert second is not None
        np.testing.assert_allclose(second.vertices.mean(axis=0), [4, 6, 8], atol=0.1)

    def test_a_large_organ_is_coarsened_until_a_browser_can_turn_it(self) -> None:
        labels = (np.random.default_rng(0).random((60, 60, 60)) > 0.5).astype(np.uint8)
        (mesh,) = meshes(labels, SPACING, 2)
        assert mesh is not None
        assert 0 < len(mesh.triangles) <= 20_000


@pytest.fixture(scope="module")
def page_folder(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("view") / "page"
    description = folder.parent / "toy.yaml"
    description.write_text("name: toy\nclasses: [background, liver, gallbladder]\nmodality: CT\n")
    view_page(folder, files["scan"], pred=[files["prediction"]], gt=files["truth"], dataset=str(description))
    return folder


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
        page.wait_for_function("() => document.querySelector('.dv-scene').data?.length")
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


class TestServer:
    @pytest.fixture(scope="class")
    @staticmethod
    def port(page_folder: Path) -> Iterator[int]:
        (page_folder.parent / "secret.txt").write_text("not yours")
        with make_server(page_folder) as server:
            assert server.server_address[0] == "127.0.0.1"
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield server.server_address[1]
            server.shutdown()

    @staticmethod
    def ask(port: int, path: str, host: str | None = None, method: str = "GET") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", host or f"127.0.0.1:{port}")
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()

    def test_it_serves_the_page(self, port: int) -> None:
        status, body = self.ask(port, "/")
        assert status == 200
        assert b"DuomodViewer.mount" in body

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
    def test_other_names_are_refused(self, port: int, host: str) -> None:
        assert self.ask(port, "/", host or "[]")[0] == 403

    @pytest.mark.parametrize(
        "path", ["/../secret.txt", "/%2e%2e/secret.txt", "//../secret.txt", "/assets/../../secret.txt"]
    )
    def test_nothing_outside_the_folder_is_reached(self, port: int, path: str) -> None:
        status, body = self.ask(port, path)
        assert status == 404
        assert b"not yours" not in body

    def test_folders_are_not_listed_and_nothing_can_be_changed(self, port: int) -> None:
        assert self.ask(port, "/cases/")[0] == 404
        for method in ("POST", "PUT", "DELETE"):
            assert self.ask(port, "/index.html", method=method)[0] == 501

    def test_the_command_serves_until_interrupted(self, files: dict[str, Path]) -> None:
        command = [sys.executable, "-m", "duomod.cli", "view", files["scan"], "--gt", files["truth"], "--no_browser"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            match = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", url)
            assert match, url
            assert self.ask(int(match[1]), "/")[0] == 200
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=30)
        assert process.returncode == 0, error
        assert "Traceback" not in error

    @pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
    def test_no_scan_stays_behind_however_it_ends(
        self, files: dict[str, Path], tmp_path: Path, ending: signal.Signals
    ) -> None:
        command = [sys.executable, "-m", "duomod.cli", "view", files["scan"], "--no_browser"]
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"http")
            assert len(list(tmp_path.glob("duomod-view-*"))) == 1
            process.send_signal(ending)
            process.communicate(timeout=30)
        assert list(tmp_path.iterdir()) == []


def test_predictions_are_named_by_what_differs(tmp_path: Path) -> None:
    def names(*paths: str) -> list[str]:
        return _titles([tmp_path / path for path in paths])

    assert names("cps.nii.gz", "supervised.nii") == ["cps", "supervised"]
    assert names("cps/seed_0/predictions/a.nii.gz", "vnet/seed_0/predictions/a.nii.gz") == ["cps", "vnet"]
    assert names("cps/seed_0/p/a.nii.gz", "cps/seed_1/p/a.nii.gz", "vnet/seed_0/p/a.nii.gz") == [
        "cps/seed_0",
        "cps/seed_1",
        "vnet/seed_0",
    ]
    assert names("x/a.nii.gz", "x/a.nii.gz") == ["a (1)", "a (2)"]
    assert names("a.nii.gz", "x/a.nii.gz") == ["a", "x/a"]


class TestWrongUse:
    def test_every_missing_file_is_named(self, files: dict[str, Path], tmp_path: Path) -> None:
        with pytest.raises(InputError) as caught:
            run_view(ViewSettings(case=tmp_path / "no.nii.gz", pred=(tmp_path / "nor.nii.gz",), gt=files["truth"]))
        assert [Path(problem.split(": ")[0]).name for problem in caught.value.problems] == ["no.nii.gz", "nor.nii.gz"]

    def test_a_folder_in_use_is_not_touched(self, files: dict[str, Path], tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("years of work")
        with pytest.raises(InputError, match="exists"):
            run_view(ViewSettings(case=files["scan"], output=tmp_path))
        assert os.listdir(tmp_path) == ["thesis.tex"]

    def test_a_port_in_use_is_explained(self, page_folder: Path) -> None:
        with make_server(page_folder) as server, pytest.raises(InputError, match="--port"):
            make_server(page_folder, server.server_address[1])
