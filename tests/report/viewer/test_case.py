"""What is packed into a case's script: volumes, label maps and numbers."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from duomod.datasets.spec import Modality
from duomod.report.sources.scans import CaseSource, Overlay, read_case
from duomod.report.viewer.case import MAX_VOXELS, write_case
from duomod.report.viewer.packing import packed

NAMES = ("background", "liver", "gallbladder")
SPACING = (1.0, 1.5, 2.0)  # x, y, z in mm, as in conftest.py
Save = Callable[..., Path]


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


def write(
    target: Path,
    scan: Path,
    truth: Path | None = None,
    *predictions: Overlay,
    modality: Modality = "CT",
    max_voxels: int = MAX_VOXELS,
) -> dict[str, Any]:
    """Read a case's files, write its script, and read that again."""
    images, problems = read_case(CaseSource(scan, truth, predictions, len(NAMES), modality))
    assert problems == []
    assert images is not None
    write_case(target, "a", images, NAMES, max_voxels=max_voxels)
    case, data = content(target)
    assert case == "a"
    return data


class TestVolumes:
    @pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "SAL"])
    def test_every_orientation_is_turned_to_the_same_volume(
        self, orientation: str, scan: np.ndarray, truth: np.ndarray, saved: Save, tmp_path: Path
    ) -> None:
        image = saved(scan, tmp_path / "scan.nii.gz", orientation)
        labels = saved(truth, tmp_path / "truth.nii.gz", orientation)
        data = write(tmp_path / "a.js", image, labels)
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
        data = write(tmp_path / "a.js", files["scan"], files["truth"], overlay, max_voxels=5000)
        truth, mine = data["maps"]
        voxel_ml = 1.0 * 1.5 * 2.0 / 1000
        assert truth["ml"] == pytest.approx([12 * 14 * 14 * voxel_ml, 4 * 5 * 4 * voxel_ml])
        # Shifted by 2 of 14 voxels: 12 are common.
        assert mine["dice"] == pytest.approx([12 / 14, 0.0], abs=1e-6)
        assert np.prod(data["size"]) <= 5000
        assert any("All numbers come from the scan's grid" in note for note in data["notes"])

    def test_a_large_scan_is_cut_to_the_labelled_region(self, saved: Save, tmp_path: Path) -> None:
        labels = np.zeros((100, 100, 100), np.uint8)
        labels[50:52, 50:52, 50:52] = 1
        image = saved(np.zeros(labels.shape, np.int16), tmp_path / "scan.nii.gz")
        data = write(tmp_path / "a.js", image, saved(labels, tmp_path / "t.nii.gz"), modality="MR")
        # 25 mm on either side of 2 voxels
        assert data["size"] == [52, 2 + 2 * 17, 2 + 2 * 13]

    def test_the_same_case_gives_the_same_file(self, files: dict[str, Path], tmp_path: Path) -> None:
        for name in ("a", "b"):
            write(tmp_path / f"{name}.js", files["scan"], files["truth"])
        assert (tmp_path / "a.js").read_bytes() == (tmp_path / "b.js").read_bytes()

    def test_every_label_map_that_does_not_fit_is_named_and_the_others_are_read(
        self, files: dict[str, Path], truth: np.ndarray, saved: Save, tmp_path: Path
    ) -> None:
        small = saved(truth[1:], tmp_path / "small.nii.gz")
        moved = saved(truth, tmp_path / "moved.nii.gz")
        image = sitk.ReadImage(str(moved))
        image.SetSpacing((1, 1, 1))
        sitk.WriteImage(image, str(moved))
        overlays = [Overlay("moved", moved), Overlay("mine", files["prediction"])]
        images, problems = read_case(CaseSource(files["scan"], small, overlays, 3))
        assert len(problems) == 2
        assert "small.nii.gz: lies on another grid than the scan" in problems[0]
        assert "spacing" in problems[1]
        assert images is not None
        assert images.truth is None
        assert [name for name, _ in images.predictions] == ["mine"]

    def test_without_its_scan_a_case_is_not_shown_but_all_its_faults_are_named(
        self, files: dict[str, Path], tmp_path: Path
    ) -> None:
        for name in ("scan", "truth"):
            (tmp_path / f"{name}.nii.gz").write_bytes(b"nothing")
        images, problems = read_case(CaseSource(tmp_path / "scan.nii.gz", tmp_path / "truth.nii.gz", ()))
        assert images is None
        assert [Path(problem.split(": ")[0]).name for problem in problems] == ["scan.nii.gz", "truth.nii.gz"]

    @pytest.mark.parametrize(("lowest", "modality"), [(-1000, "CT"), (0, "MR")])
    def test_without_a_description_the_values_say_what_a_scan_is(
        self, lowest: int, modality: str, saved: Save, tmp_path: Path
    ) -> None:
        values = np.full((5, 6, 7), lowest, np.int16)
        images, _ = read_case(CaseSource(saved(values, tmp_path / "study_0712.nii.gz"), None, ()))
        assert images is not None
        assert images.modality == modality

    def test_one_extreme_voxel_does_not_take_the_levels_from_all_others(
        self, scan: np.ndarray, saved: Save, tmp_path: Path
    ) -> None:
        values = np.random.default_rng(0).normal(100, 20, scan.shape).astype(np.float32)
        values[3, 4, 5] = 1e6
        image = write(tmp_path / "a.js", saved(values, tmp_path / "scan.nii.gz"), modality="MR")["image"]
        stored = unpacked(image["data"], np.int16).reshape(scan.shape)
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
        data = write(tmp_path / "a.js", tmp_path / "scan.nii.gz", tmp_path / "truth.nii.gz")
        (centre, _) = data["maps"][0]["centres"]
        shown = np.asarray(data["affine"]) @ [*centre, 1]
        np.testing.assert_allclose(shown, (affine @ [45, 10, 21, 1])[:3], atol=1e-3)
        assert any("tilted by 12°" in note for note in data["notes"])

    def test_packing_keeps_every_value(self) -> None:
        values = np.random.default_rng(0).integers(-(2**15), 2**15, 1000).astype(np.int16)
        np.testing.assert_array_equal(unpacked(packed(values), np.int16), values)
