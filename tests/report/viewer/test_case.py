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
from duomod.errors import InputError
from duomod.report.sources.scans import CaseSource, Overlay
from duomod.report.viewer.case import write_case
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


def source(scan: Path, truth: Path | None = None, *predictions: Overlay, modality: Modality = "CT") -> CaseSource:
    return CaseSource("a", scan, truth, predictions, NAMES, modality)


class TestVolumes:
    @pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "SAL"])
    def test_every_orientation_is_turned_to_the_same_volume(
        self, orientation: str, scan: np.ndarray, truth: np.ndarray, saved: Save, tmp_path: Path
    ) -> None:
        image = saved(scan, tmp_path / "scan.nii.gz", orientation)
        labels = saved(truth, tmp_path / "truth.nii.gz", orientation)
        write_case(tmp_path / "a.js", source(image, labels))
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
        summary = write_case(tmp_path / "a.js", source(files["scan"], files["truth"], overlay), max_voxels=5000)
        assert summary.truth is not None
        voxel_ml = 1.0 * 1.5 * 2.0 / 1000
        assert summary.truth.ml == pytest.approx([12 * 14 * 14 * voxel_ml, 4 * 5 * 4 * voxel_ml])
        # Shifted by 2 of 14 voxels: 12 are common.
        assert summary.predictions[0].dice == pytest.approx([12 / 14, 0.0])
        assert np.prod(summary.size) <= 5000
        assert any("All numbers come from the scan's grid" in note for note in summary.notes)

    def test_a_large_scan_is_cut_to_the_labelled_region(self, saved: Save, tmp_path: Path) -> None:
        labels = np.zeros((100, 100, 100), np.uint8)
        labels[50:52, 50:52, 50:52] = 1
        image = saved(np.zeros(labels.shape, np.int16), tmp_path / "scan.nii.gz")
        summary = write_case(tmp_path / "a.js", source(image, saved(labels, tmp_path / "t.nii.gz"), modality="MR"))
        # 25 mm on either side of 2 voxels
        assert summary.size == (52, 2 + 2 * 17, 2 + 2 * 13)

    def test_the_same_case_gives_the_same_file(self, files: dict[str, Path], tmp_path: Path) -> None:
        for name in ("a", "b"):
            write_case(tmp_path / f"{name}.js", source(files["scan"], files["truth"]))
        assert (tmp_path / "a.js").read_bytes() == (tmp_path / "b.js").read_bytes()

    def test_every_wrong_grid_is_named_and_nothing_is_written(
        self, files: dict[str, Path], truth: np.ndarray, saved: Save, tmp_path: Path
    ) -> None:
        small = saved(truth[1:], tmp_path / "small.nii.gz")
        moved = saved(truth, tmp_path / "moved.nii.gz")
        image = sitk.ReadImage(str(moved))
        image.SetSpacing((1, 1, 1))
        sitk.WriteImage(image, str(moved))
        with pytest.raises(InputError) as caught:
            write_case(tmp_path / "a.js", source(files["scan"], small, Overlay("moved", moved)))
        assert len(caught.value.problems) == 2
        assert "small.nii.gz: lies on another grid than the scan" in caught.value.problems[0]
        assert "spacing" in caught.value.problems[1]
        assert not (tmp_path / "a.js").exists()

    def test_one_extreme_voxel_does_not_take_the_levels_from_all_others(
        self, scan: np.ndarray, saved: Save, tmp_path: Path
    ) -> None:
        values = np.random.default_rng(0).normal(100, 20, scan.shape).astype(np.float32)
        values[3, 4, 5] = 1e6
        write_case(tmp_path / "a.js", source(saved(values, tmp_path / "scan.nii.gz"), modality="MR"))
        image = content(tmp_path / "a.js")[1]["image"]
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
        summary = write_case(tmp_path / "a.js", source(tmp_path / "scan.nii.gz", tmp_path / "truth.nii.gz"))
        data = content(tmp_path / "a.js")[1]
        (centre, _) = data["maps"][0]["centres"]
        shown = np.asarray(data["affine"]) @ [*centre, 1]
        np.testing.assert_allclose(shown, (affine @ [45, 10, 21, 1])[:3], atol=1e-3)
        assert any("tilted by 12°" in note for note in summary.notes)

    def test_packing_keeps_every_value(self) -> None:
        values = np.random.default_rng(0).integers(-(2**15), 2**15, 1000).astype(np.int16)
        np.testing.assert_array_equal(unpacked(packed(values), np.int16), values)
