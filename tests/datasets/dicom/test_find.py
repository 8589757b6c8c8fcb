"""A DICOM series becomes a volume on a regular grid, or a sentence about what is missing."""

from __future__ import annotations

import locale
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from duomod.datasets.dicom.find import Found, find_series
from duomod.datasets.dicom.pixels import read_series
from duomod.datasets.grid import Geometry


def write_series(
    folder: Path,
    positions: list[tuple[float, float, float]],
    *,
    modality: str = "CT",
    uid: str = "1.2.3",
    orientation: str = "1\\0\\0\\0\\1\\0",
) -> Path:
    """Slices of 6 x 5 voxels; slice i holds the value 10 i."""
    folder.mkdir(parents=True, exist_ok=True)
    before = locale.setlocale(locale.LC_ALL)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number, (x, y, z) in enumerate(positions):
        image = sitk.GetImageFromArray(np.full((1, 5, 6), 10 * number, np.int16))
        image.SetSpacing((0.8, 0.9, 2.0))
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{uid}.{number + 1}",
            "0008|0060": modality,
            "0020|000d": "1.2.9",
            "0020|000e": uid,
            "0020|0013": str(number + 1),
            "0020|0032": f"{x}\\{y}\\{z}",
            "0020|0037": orientation,
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        # Named against their order in space, so that sorting by name would be wrong.
        writer.SetFileName(str(folder / f"{uid}_{len(positions) - number:03d}.dcm"))
        writer.Execute(image)
    locale.setlocale(locale.LC_ALL, before)  # writing DICOM sets the process to plain C: texts are ASCII from then on
    return folder


def stack(count: int = 6, step: float = 2.0) -> list[tuple[float, float, float]]:
    return [(-10.0, 20.0, 5.0 + step * i) for i in range(count)]


def only_problem(folder: Path) -> str:
    found = find_series(folder)
    assert found.series == []
    assert len(found.problems) == 1
    assert found.problems[0].startswith(f"{folder}")
    return found.problems[0]


def test_slices_are_stacked_by_position(tmp_path: Path) -> None:
    found = find_series(write_series(tmp_path / "john", stack()))
    (series,) = found.series
    assert (found.problems, found.left_out, series.doubts) == ([], [], ())
    assert (series.case_id, series.modality) == ("john", "CT")
    image = read_series(series)
    assert sitk.GetArrayFromImage(image)[:, 0, 0].tolist() == [0, 10, 20, 30, 40, 50]
    assert image.GetSpacing() == pytest.approx((0.8, 0.9, 2.0))
    assert image.GetOrigin() == pytest.approx((-10.0, 20.0, 5.0))


def test_each_subfolder_is_a_case(tmp_path: Path) -> None:
    write_series(tmp_path / "a", stack())
    write_series(tmp_path / "b", stack(), modality="MR")
    (tmp_path / "notes").mkdir()
    found = find_series(tmp_path)
    assert found.problems == []
    assert [(series.case_id, series.modality) for series in found.series] == [("a", "CT"), ("b", "MR")]


def test_a_folder_without_dicom_has_neither_series_nor_problems(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing here", encoding="utf-8")
    assert find_series(tmp_path) == Found()


def test_a_missing_slice_is_named(tmp_path: Path) -> None:
    positions = stack(8)
    del positions[3]
    text = only_problem(write_series(tmp_path / "a", positions))
    assert "missing" in text
    assert "4 mm between slices 3 and 4 of 7" in text


def test_several_series_in_one_folder(tmp_path: Path) -> None:
    write_series(tmp_path / "a", stack(), uid="1.2.3")
    assert "2 DICOM series" in only_problem(write_series(tmp_path / "a", stack(), uid="1.2.4"))


def test_two_slices_at_one_place(tmp_path: Path) -> None:
    assert "where another one lies" in only_problem(write_series(tmp_path / "a", [*stack(), stack()[2]]))


def test_one_slice_is_no_scan(tmp_path: Path) -> None:
    assert "only 1 DICOM slice" in only_problem(write_series(tmp_path / "a", stack(1)))


def test_a_tilted_gantry(tmp_path: Path) -> None:
    positions = [(x, y + 0.3 * i, z) for i, (x, y, z) in enumerate(stack())]
    assert "tilted" in only_problem(write_series(tmp_path / "a", positions))


def test_all_problems_of_a_folder_of_series(tmp_path: Path) -> None:
    write_series(tmp_path / "good", stack())
    write_series(tmp_path / "one", stack(1))
    write_series(tmp_path / "gap", [*stack(), (-10.0, 20.0, 99.0)])
    found = find_series(tmp_path)
    assert [series.case_id for series in found.series] == ["good"]
    assert sorted(Path(text.split(":")[0]).name for text in found.problems) == ["gap", "one"]


def test_the_real_series_lies_where_its_labels_lie(shared_data: Path) -> None:
    found = find_series(shared_data / "ct" / "dicom")
    (series,) = found.series
    assert (found.problems, found.left_out) == ([], [])
    assert series.doubts == (f"{series.folder}: instance numbers begin at 267: slices before may be missing",)
    assert series.modality == "CT"
    image = read_series(series)
    labels = sitk.DICOMOrient(sitk.ReadImage(str(shared_data / "ct" / "dicom_label.nii.gz")), "LPS")
    assert Geometry.of(image).differences(Geometry.of(labels)) == []
    hu = sitk.GetArrayFromImage(image)
    # Labelled organs are soft tissue: 96.8 % of their voxels are above 0 HU, at most 92.9 % were an axis flipped.
    assert (hu[sitk.GetArrayFromImage(labels) > 0] > 0).mean() > 0.95
