"""Label maps: values at the border of what is a class, merging, reading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from duomod.datasets.grid import Geometry
from duomod.datasets.labels import merged, read_labels, value_problems
from duomod.errors import InputError


def labels(*values: float, dtype: type = np.int16) -> np.ndarray:
    return np.array([0, 0, *values], dtype)[None, None]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_the_highest_class_is_right_and_the_next_is_not(dtype: type) -> None:
    assert value_problems(labels(1, 2, dtype=dtype), 3) == []
    (problem,) = value_problems(labels(1, 3, dtype=dtype), 3)
    assert "unknown label value(s) 3 outside 0..2" in problem


def test_without_a_number_of_classes_what_can_be_stored_is_right() -> None:
    assert value_problems(labels(255)) == []
    assert "256" in value_problems(labels(256))[0]
    assert "-1" in value_problems(labels(-1))[0]


@pytest.mark.parametrize("value", [0.5, 1.0001, np.nan, np.inf, -np.inf])
def test_what_is_not_whole_is_counted(value: float) -> None:
    assert value_problems(labels(1, value, value, dtype=np.float32), 3)[0].startswith("2 voxel(s) are not whole")


def test_many_unknown_values_are_cut_short() -> None:
    assert "3, 4, 5, 6, 7, 8, 9, 10, 11, 12, ... (17 values)" in value_problems(labels(*range(20)), 3)[0]


def test_a_merged_value_is_right_and_becomes_its_class() -> None:
    raw = labels(1, 16, 2)
    assert value_problems(raw, 3, {16: 2}) == []
    result = merged(raw, {16: 2})
    assert result.dtype == np.uint8
    assert result.ravel().tolist() == [0, 0, 1, 2, 2]
    assert raw.max() == 16


def test_merges_look_at_the_raw_values_alone() -> None:
    assert merged(labels(1, 2), {1: 2, 2: 1}).ravel().tolist() == [0, 0, 2, 1]


def test_a_file_is_read_with_its_grid(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(labels(1, 7))
    image.SetSpacing((0.5, 2.0, 3.0))
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    found, grid = read_labels(tmp_path / "a.nii.gz", 3, {7: 2})
    assert found.ravel().tolist() == [0, 0, 1, 2]
    assert found.dtype == np.uint8
    assert grid == Geometry.of(image)
    with pytest.raises(InputError, match=r"a\.nii\.gz: unknown label value\(s\) 7 outside 0\.\.2"):
        read_labels(tmp_path / "a.nii.gz", 3)
