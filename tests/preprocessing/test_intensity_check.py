"""Voxels that cannot be what they are taken for are refused; every real scan passes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from raw_sets import body, preprocess, raw_set, scan, write

from duomod.datasets.spec import Modality
from duomod.errors import InputError
from duomod.preprocessing.intensity_check import Intensities, findings

Array = NDArray[np.generic]


def ct(air: bool = True, seed: int = 0) -> NDArray[np.int16]:
    """An abdomen: air around it, fat, soft tissue, some bone and contrast."""
    rng = np.random.default_rng(seed)
    shape = (20, 40, 40)
    voxels = rng.normal(40, 15, shape)
    voxels[:, 8:12, 8:32] = rng.normal(-100, 10, (20, 4, 24))
    voxels[:, 20:23, 18:22] = rng.normal(700, 150, (20, 3, 4))
    if air:
        voxels[:, :6], voxels[:, -6:] = -1000, -1000
        voxels[:, :6] += rng.normal(0, 10, (20, 6, 40))
    return np.clip(np.rint(voxels), -1024, 3071).astype(np.int16)


def mr(seed: int = 0) -> NDArray[np.int16]:
    rng = np.random.default_rng(seed)
    voxels = np.abs(rng.normal(0, 5, (20, 40, 40)))
    voxels[:, 8:-8, 8:-8] += rng.normal(600, 150, (20, 24, 24))
    return np.clip(np.rint(voxels), 0, None).astype(np.int16)


def padded(value: int, array: NDArray[np.int16]) -> NDArray[np.int16]:
    outside = np.hypot(*np.indices(array.shape[1:]) - 19.5) > 19
    result = array.copy()
    result[:, outside] = value
    return result


def kinds(array: Array, modality: Modality) -> list[tuple[str, bool]]:
    return [(found.kind, found.fatal) for found in findings(Intensities.of(array), modality)]


def metal(array: NDArray[np.int16]) -> NDArray[np.int16]:
    result = array.copy()
    result[5, 20, 20:24] = 30_000
    return result


@pytest.mark.parametrize("air", [True, False])
@pytest.mark.parametrize("padding", [None, -2000, -3024, -32768])
def test_every_ct_in_hu_passes(air: bool, padding: int | None) -> None:
    array = metal(ct(air))
    array = array if padding is None else padded(padding, array)
    for form in (array, array.astype(np.float32), array.astype(np.float64) + 0.25, array[:, :, ::-1]):
        assert kinds(form, "CT") == []


def test_a_denoised_crop_of_bone_and_fat_passes() -> None:
    knee = np.full((10, 20, 20), -95, np.int16)
    knee[:, 4:16, 4:16] = 60
    knee[:, 7:13, 7:13] = 1000
    knee[:, 9:11, 9:11] = 350
    assert not any(fatal for _, fatal in kinds(knee + np.arange(20, dtype=np.int16), "CT"))


def zscore(array: Array) -> Array:
    return (array - array.mean()) / array.std()


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("normalised", lambda a: (a + 1024) / 4095),
        ("normalised", lambda a: (a / 1024).astype(np.float32)),
        ("normalised", zscore),
        ("normalised", lambda a: np.clip((a + 125) / 400, -1, 1)),
        ("8 bits", lambda a: (np.clip((a + 125) / 400, 0, 1) * 255).astype(np.uint8)),
        ("8 bits", lambda a: (np.clip((a + 125) / 400, 0, 1) * 100).round()),
        ("intercept", lambda a: (a + 1024).astype(np.uint16)),
        ("intercept", lambda a: (a + 1000.0).clip(0)),
        ("intercept", lambda a: padded(-2000, (a + 1024).astype(np.int16))),
        ("not negative", lambda a: (a.astype(np.int64) + 32768).astype(np.uint16)),
        ("not negative", lambda a: (a + 1024.0) * 16),
        ("labels", lambda a: (a > 0).astype(np.uint8) * 15 + (a > 500)),
    ],
)
@pytest.mark.parametrize("air", [True, False])
def test_what_is_not_in_hu_is_no_ct(kind: str, change, air: bool) -> None:
    (found,) = findings(Intensities.of(change(metal(ct(air)))), "CT")
    assert (found.kind, found.fatal) == (kind, True)


def test_mr_taken_for_ct_and_ct_taken_for_mr() -> None:
    assert kinds(mr(), "CT") == [("not negative", True)]
    assert kinds(ct(), "MR") == [("HU", True)]
    assert kinds(padded(-2000, ct()), "MR") == [("HU", True)]
    assert kinds(mr(), "MR") == []
    assert kinds(mr() / 1000, "MR") == []


def test_what_is_doubtful_is_said_and_no_more() -> None:
    assert kinds(zscore(mr()), "MR") == [("negative MR", False)]
    assert kinds(ct(air=False), "MR") == [("negative MR", False)]
    beyond = ct().astype(np.int32)
    beyond[3, 20, 20] = 60_000
    assert kinds(beyond, "CT") == [("beyond", False)]
    assert kinds(ct() - 1024, "CT") == [("no soft tissue", False)]
    assert kinds(np.clip(ct(), -160, 240), "CT") == [("cut", False)]
    assert kinds(np.zeros_like(ct()), "CT") == kinds(np.zeros_like(ct()), "MR") == [("constant", False)]
    liver = np.random.default_rng(0).normal(200, 40, (20, 20, 20)).astype(np.int16)  # with contrast, cut out
    assert kinds(liver, "CT") == [("no fat, no air", False)]


def test_a_label_map_is_no_mr() -> None:
    assert kinds((mr() > 300).astype(np.uint8) * 4, "MR") == [("labels", True)]


def test_only_whole_numbers_with_air_and_tissue_are_surely_hu() -> None:
    assert Intensities.of(ct()).surely_hu
    assert not Intensities.of(ct(air=False)).surely_hu
    assert not Intensities.of(ct() + 0.5).surely_hu
    assert not Intensities.of(mr()).surely_hu


def test_real_scans_pass(shared_data: Path) -> None:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(shared_data / "ct" / "dicom")))
    for image in (sitk.ReadImage(str(shared_data / "ct" / "ct_0001.nii.gz")), reader.Execute()):
        array = sitk.GetArrayFromImage(image)
        assert kinds(array, "CT") == []
        y, x = (length // 3 for length in array.shape[1:])
        assert kinds(array[:, y : 2 * y, x : 2 * x], "CT") == []
        assert kinds(array, "MR") == [("HU", True)]
        assert kinds((array + 1024.0).clip(0), "CT") == [("intercept", True)]
    for folder in ("hippocampus/images", "oasis/images", "la/test"):
        scans = sorted((shared_data / folder).rglob("*.nii.gz"))
        scans = [path for path in scans if "labels" not in path.parts]
        assert scans
        for path in scans[::5]:
            found = findings(Intensities.of(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))), "MR")
            assert [one.kind for one in found if one.fatal] == [], path


class TestPreprocess:
    def spoilt(self, folder: Path, cases: int, spoil: int) -> Path:
        raw_set(folder, cases)
        for number in range(spoil):
            hu, _ = body(seed=number)
            image = scan(((hu + 1024) / 4095).astype(np.float32), ("RAS", "LPS", "PIR")[number % 3])
            write(folder / "imagesTr" / f"case_{number}.nii.gz", image)
        return folder

    def test_a_ct_in_0_to_1_is_refused_by_name(self, tmp_path: Path) -> None:
        raw = self.spoilt(tmp_path / "raw", 3, 1)
        with pytest.raises(
            InputError, match=r"case_0\.nii\.gz: .*no Hounsfield units .*--accept_intensities"
        ) as caught:
            preprocess(raw, tmp_path / "out")
        assert len(caught.value.problems) == 1
        assert not (tmp_path / "out").exists()

    def test_a_whole_set_gives_one_line_with_the_names(self, tmp_path: Path) -> None:
        raw = self.spoilt(tmp_path / "raw", 6, 5)
        with pytest.raises(InputError, match="5 of 6 scans are like this") as caught:
            preprocess(raw, tmp_path / "out")
        (line,) = caught.value.problems
        assert all(f"case_{number}.nii.gz" in line for number in range(5))

    def test_who_insists_is_told(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        raw = self.spoilt(tmp_path / "raw", 3, 1)
        preprocess(raw, tmp_path / "out", accept_intensities=True)
        assert "doubtful: imagesTr/case_0.nii.gz" in capsys.readouterr().err
        record = json.loads((tmp_path / "out" / "dataset.json").read_text(encoding="utf-8"))["cases"][0]
        assert list(record["doubts"]) == ["normalised"]
        preprocess(raw, tmp_path / "out")  # nothing is left to do, and it is still said
        assert "doubtful: imagesTr/case_0.nii.gz" in capsys.readouterr().err
