"""Every defect of a scan is a sentence that names the file, and all of them come together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from duomod.datasets.check import load_case
from duomod.datasets.importers import RawCase
from duomod.datasets.spec import DatasetSpec, parse_spec

SPEC = parse_spec({"name": "x", "classes": ["background", "a", "b"]}, "x")
OBLIQUE = (0.0, 0.0, 1.0, -1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


def check_case(case: RawCase, spec: DatasetSpec) -> list[str]:
    return load_case(case, spec)[2]


def write(path: Path, array: np.ndarray, spacing=(1.0, 1.0, 2.0), origin=(0.0, 5.0, -3.0), direction=OBLIQUE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    if array.ndim == 3:
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
        image.SetDirection(direction)
    sitk.WriteImage(image, str(path), True)
    return path


def ramp(shape: tuple[int, ...] = (6, 7, 8)) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.int16).reshape(shape)


def labels(shape: tuple[int, ...] = (6, 7, 8), highest: int = 2, dtype: type = np.uint8) -> np.ndarray:
    return (ramp(shape) % (highest + 1)).astype(dtype)


def pair(folder: Path, **of_label: object) -> RawCase:
    image = write(folder / "imagesTr" / "case.nii.gz", ramp())
    array = of_label.pop("array", labels())
    label = write(folder / "labelsTr" / "case.nii.gz", array, **of_label)  # type: ignore[arg-type]
    return RawCase("case", "Tr", image, label)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_a_good_case_of_any_number_type_has_no_problem(tmp_path: Path, dtype: type) -> None:
    assert check_case(pair(tmp_path, array=labels(dtype=dtype)), SPEC) == []


def test_a_case_without_label_is_good(tmp_path: Path) -> None:
    assert check_case(RawCase("c", "Tr", write(tmp_path / "c.nii.gz", ramp()), None), SPEC) == []


def test_rounding_of_the_header_is_no_difference(tmp_path: Path) -> None:
    assert check_case(pair(tmp_path, origin=(1e-4, 5.0, -3.0)), SPEC) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"array": labels((6, 7, 9))}, "size"),
        ({"spacing": (1.0, 1.0, 2.5)}, "spacing"),
        ({"origin": (0.0, 6.0, -3.0)}, "origin"),
        ({"direction": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)}, "direction"),
    ],
)
def test_a_label_on_another_grid_is_told_by_what_differs(tmp_path: Path, change: dict[str, object], word: str) -> None:
    case = pair(tmp_path, **change)
    (problem,) = check_case(case, SPEC)
    assert str(case.label) in problem
    assert f"{word} (" in problem
    others = {"size", "spacing", "origin", "direction"} - {word}
    assert not any(f"{other} (" in problem for other in others)


def replace(value: int) -> np.ndarray:
    array = labels(dtype=np.int16)
    array[2, 3, 4] = value
    return array


@pytest.mark.parametrize("value", [3, 255, -1, 1000])
def test_a_label_value_out_of_range_is_named(tmp_path: Path, value: int) -> None:
    case = pair(tmp_path, array=replace(value))
    (problem,) = check_case(case, SPEC)
    assert str(case.label) in problem
    assert f"value(s) {value} outside" in problem
    assert "num_classes is 3" in problem


def test_a_merged_label_value_is_good(tmp_path: Path) -> None:
    merging: DatasetSpec = SPEC.model_copy(update={"label_merges": {16: 2}})
    assert check_case(pair(tmp_path, array=replace(16)), merging) == []
    assert len(check_case(pair(tmp_path, array=replace(17)), merging)) == 1


def test_fractions_in_a_label_are_an_error(tmp_path: Path) -> None:
    array = labels(dtype=np.float32)
    array[0, 0, :3] = 0.5
    (problem,) = check_case(pair(tmp_path, array=array), SPEC)
    assert "3 voxel(s) are not whole numbers" in problem


def with_nan() -> np.ndarray:
    array = ramp().astype(np.float32)
    array[1, 2, 3] = np.nan
    return array


def truncated(path: Path) -> None:
    rng = np.random.default_rng(0)
    write(path, rng.integers(0, 1000, (20, 20, 20)).astype(np.int16))
    path.write_bytes(path.read_bytes()[:-4000])


BAD: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": truncated,
    "gzip": lambda path: path.write_bytes(b"no gzip at all" * 50),
    "4D": lambda path: sitk.WriteImage(sitk.JoinSeries([sitk.Image(4, 4, 4, sitk.sitkInt16)] * 3), str(path)),
    "2D": lambda path: write(path, ramp((6, 7))),
    "NaN": lambda path: write(path, with_nan()),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_image_is_told_by_name_and_kind(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bad.nii.gz"
    BAD[kind](path)
    (problem,) = check_case(RawCase("bad", "Tr", path, None), SPEC)
    assert problem.startswith(str(path))
    assert kind.casefold() in problem.casefold()


def test_all_problems_of_a_case_come_together(tmp_path: Path) -> None:
    problems = check_case(pair(tmp_path, array=replace(9), origin=(9.0, 9.0, 9.0)), SPEC)
    assert [word in text for word, text in zip(("value(s) 9", "origin ("), problems, strict=True)] == [True, True]
