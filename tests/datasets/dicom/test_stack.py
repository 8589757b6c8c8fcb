"""Slices become a grid by where they lie; whatever is not one regular stack is refused in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_series import AXIAL, CORONAL, OBLIQUE, SAGITTAL, Spoil, hu, slices, write
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from duomod.datasets.dicom.find import find_series
from duomod.datasets.dicom.pixels import read_series
from duomod.datasets.dicom.series import Series


def the_series(folder: Path) -> Series:
    found = find_series(folder)
    assert found.problems == []
    (series,) = found.series
    return series


def problem(folder: Path) -> str:
    found = find_series(folder)
    assert found.series == []
    (text,) = found.problems
    assert text.startswith(f"{folder}: ")
    return text


def element(keyword: str, value: object, only: int | None = None) -> Spoil:
    """Sets an element of all slices, or of one; None removes it. Texts that are no numbers are written as they are."""

    def spoil(data: Dataset, number: int) -> None:
        if only not in (None, number):
            return
        if value is None:
            del data[keyword]
        elif isinstance(value, str) and keyword in data:
            data.add_new(Tag(keyword), "LO", value.split("\\"))
        else:
            setattr(data, keyword, value)

    return spoil


FLIPPED = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # feet first


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, OBLIQUE, FLIPPED])
@pytest.mark.parametrize("step_mm", [2.5, -2.5])
def test_every_value_lies_where_its_own_file_says(
    tmp_path: Path, orientation: tuple[float, ...], step_mm: float
) -> None:
    folder = write(tmp_path / "scan", slices(orientation, step_mm=step_mm))
    series = the_series(folder)
    image = read_series(series)
    array = sitk.GetArrayFromImage(image)
    from_world = np.linalg.inv(series.geometry.matrix)
    seen = 0
    for path in folder.iterdir():
        data = dcmread(path)
        row, column = np.array(data.ImageOrientationPatient, float).reshape(2, 3)
        stored = np.frombuffer(data.PixelData, "<u2").reshape(data.Rows, data.Columns).astype(int) - 1024
        down_mm, along_mm = map(float, data.PixelSpacing)
        for (j, i), value in np.ndenumerate(stored):
            world = np.array(data.ImagePositionPatient, float) + row * along_mm * i + column * down_mm * j
            place = from_world @ (world - series.geometry.origin)
            x, y, z = np.rint(place).astype(int)
            assert np.abs(place - (x, y, z)).max() < 1e-3
            assert array[z, y, x] == value
            seen += 1
    assert seen == array.size
    assert series.geometry.spacing == pytest.approx((0.7, 0.9, 2.5), rel=1e-6)


def test_the_grid_is_the_one_that_itk_reads(tmp_path: Path) -> None:
    folder = write(tmp_path / "scan", slices(OBLIQUE))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    theirs, ours = reader.Execute(), read_series(the_series(folder))
    assert np.array_equal(sitk.GetArrayFromImage(theirs), sitk.GetArrayFromImage(ours))
    assert ours.GetSpacing() == pytest.approx(theirs.GetSpacing(), rel=1e-9)
    assert ours.GetOrigin() == pytest.approx(theirs.GetOrigin(), rel=1e-9)
    # ITK takes the stacking direction from the rounded positions.
    assert ours.GetDirection() == pytest.approx(theirs.GetDirection(), abs=1e-5)


def test_thickness_and_distance_tags_do_not_count(tmp_path: Path) -> None:
    def spoil(data: Dataset, number: int) -> None:
        data.SliceThickness, data.SpacingBetweenSlices = "9", "7"

    assert the_series(write(tmp_path / "scan", slices(), spoil)).geometry.spacing[2] == 2.5


def without_rescale(data: Dataset, number: int) -> None:
    if number == 2:
        del data.RescaleSlope, data.RescaleIntercept


NO_STACK = {
    "no spacing": (element("PixelSpacing", None), "no PixelSpacing in I000.dcm, I001.dcm"),
    "no spacing in one": (element("PixelSpacing", None, 1), "no PixelSpacing in I001.dcm; export"),
    "no position": (element("ImagePositionPatient", None, 2), "no ImagePositionPatient in I002.dcm"),
    "no orientation": (element("ImageOrientationPatient", None), "no ImageOrientationPatient in I000.dcm"),
    "spacing 0": (element("PixelSpacing", "0\\0"), "PixelSpacing 0 x 0 mm"),
    "negative spacing": (element("PixelSpacing", "-0.9\\0.7"), "PixelSpacing -0.9 x 0.7 mm"),
    "huge spacing": (element("PixelSpacing", "900\\0.7"), "PixelSpacing 900 x 0.7 mm"),
    "spacing NaN": (element("PixelSpacing", "nan\\0.7", 3), "'nan\\0.7', which is not 2 numbers in I003.dcm"),
    "spacing is text": (element("PixelSpacing", "abc\\0.7"), "PixelSpacing 'abc\\0.7'"),
    "Python's underscore": (element("PixelSpacing", "0_9\\0.7"), "PixelSpacing '0_9\\0.7'"),
    "one number": (element("PixelSpacing", "0.9"), "which is not 2 numbers"),
    "spacing varies": (element("PixelSpacing", "0.95\\0.7", 4), "(0.9 x 0.7 mm, 0.95 x 0.7 mm in I004.dcm)"),
    "infinite position": (element("ImagePositionPatient", "inf\\0\\0", 0), "which is not 3 numbers in I000.dcm"),
    "position far away": (element("ImagePositionPatient", "1e7\\0\\0", 0), "ImagePositionPatient 1e+07 mm in I000.dcm"),
    "no unit vectors": (element("ImageOrientationPatient", "1\\0\\0\\0\\2\\0"), "no unit vectors at right angles"),
    "skewed": (element("ImageOrientationPatient", "1\\0\\0\\0.6\\0.8\\0"), "no unit vectors at right angles"),
    "two patients": (element("PatientID", "someone", 1), "PatientID: another in I001.dcm)"),
    "two frames of reference": (element("FrameOfReferenceUID", "9.9", 5), "ReferenceUID: 1.2.99, 9.9 in I005.dcm"),
    "two sizes": (element("Rows", 6, 1), "Rows: 5, 6 in I001.dcm"),
    "signed and not": (element("PixelRepresentation", 1, 1), "PixelRepresentation: 0, 1 in I001.dcm"),
    "two kinds of object": (element("SOPClassUID", "1.2.840.10008.5.1.4.1.1.4", 1), "SOPClassUID"),
    "two echoes": (element("EchoTime", 4.0, 2), "EchoTime: none, 4.0 in I002.dcm"),
    "two kernels": (element("ConvolutionKernel", "B60", 2), "ConvolutionKernel: none, B60 in I002.dcm"),
    "localizer": (element("ImageOrientationPatient", "1\\0\\0\\0\\0\\-1", 5), "a localizer among them? I005.dcm)"),
    "shifted": (element("ImagePositionPatient", "-9\\20\\10", 2), "within their plane (I002.dcm: 1 mm)"),
    "colour": (element("PhotometricInterpretation", "RGB"), "no grey values (PhotometricInterpretation RGB)"),
    "inverted": (element("PhotometricInterpretation", "MONOCHROME1"), "inverted grey values"),
    "slope 0": (element("RescaleSlope", "0"), "RescaleSlope 0"),
    "slope without intercept": (element("RescaleIntercept", None, 1), "no RescaleIntercept in I001.dcm"),
    "intercept NaN": (element("RescaleIntercept", "nan", 1), "'nan', which is not a number in I001.dcm"),
    "two kinds of value": (without_rescale, "RescaleIntercept in I002.dcm, but in the other slices"),
    "copied": (element("SOPInstanceUID", "1.2.3.1", 4), "the same slice twice (I000.dcm, I004.dcm)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_STACK)
def test_what_is_no_stack_is_refused_with_folder_and_files(tmp_path: Path, kind: str) -> None:
    spoil, words = NO_STACK[kind]
    assert words in problem(write(tmp_path / "scan", slices(), spoil))


PLACES: dict[str, tuple[Callable[[int], tuple[float, float, float]], str]] = {
    "gap": (lambda k: (0, 0, 2.0 * (k + (k > 2))), "but 4 mm between slices 3 and 4 of 6: I002.dcm, I003.dcm"),
    "uneven": (lambda k: (0, 0, (2.0, 4.0, 6.0, 8.1, 10.0, 12.0)[k]), "unevenly spaced"),
    "ever wider": (lambda k: (0, 0, 2.0 * k + 0.0099 * k * k), "unevenly spaced"),
    "tilted": (lambda k: (0, 0.5 * k, 2.0 * k), "a tilted gantry"),
    "twice at one place": (lambda k: (0, 0, 2.0 * (k % 5)), "1 slice(s) where another one lies (I000.dcm, I005.dcm)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PLACES)
def test_places_that_are_not_regular(tmp_path: Path, kind: str) -> None:
    place, words = PLACES[kind]

    def spoil(data: Dataset, number: int) -> None:
        data.ImagePositionPatient = [f"{one:.4f}" for one in place(number)]

    assert words in problem(write(tmp_path / "scan", slices(), spoil))


def test_small_steps_that_add_up_are_uneven(tmp_path: Path) -> None:
    """No step differs by more than a hundredth from the median, but the middle of the stack is far from its place."""
    z_mm = np.cumsum([2.0] * 100 + [2.018] * 100)

    def spoil(data: Dataset, number: int) -> None:
        data.ImagePositionPatient = ["0", "0", f"{z_mm[number]:.4f}"]

    volume = np.zeros((200, 2, 2), np.int16)
    assert "unevenly spaced" in problem(write(tmp_path / "scan", slices(volume=volume), spoil))


def test_rounded_positions_are_even(tmp_path: Path) -> None:
    def spoil(data: Dataset, number: int) -> None:
        data.ImagePositionPatient = ["0", "0", f"{0.625 * number:.2f}"]

    series = the_series(write(tmp_path / "scan", slices(), spoil))
    assert series.geometry.spacing[2] == pytest.approx(0.625, rel=0.01)


class TestDoubts:
    """What is read, but said."""

    def doubts(self, folder: Path, spoil: Spoil) -> list[str]:
        found = the_series(write(folder, slices(), spoil)).doubts
        assert all(text.startswith(f"{folder}: ") for text in found)
        return [text.removeprefix(f"{folder}: ") for text in found]

    @pytest.mark.parametrize(
        ("keyword", "value", "words"),
        [
            ("ImagesInAcquisition", 40, "6 slices, but its headers speak of 40 images"),
            ("NumberOfSeriesRelatedInstances", 7, "6 slices, but its headers speak of 7 images"),
            ("PixelPaddingValue", 63536, "PixelPaddingValue 63536 stands for 62512 HU"),
            ("LossyImageCompression", "01", "packed with loss"),
            ("RescaleType", "Z_EFF", "of the type Z_EFF, not HU"),
            ("Modality", "PT", "the modality is PT, neither CT nor MR"),
        ],
    )
    def test_what_headers_say(self, tmp_path: Path, keyword: str, value: object, words: str) -> None:
        (text,) = self.doubts(tmp_path / "scan", element(keyword, value))
        assert words in text

    @pytest.mark.parametrize("keyword", ["ImagesInAcquisition", "PixelPaddingValue", "InstanceNumber"])
    def test_what_only_helps_may_make_no_sense(self, tmp_path: Path, keyword: str) -> None:
        def spoil(data: Dataset, number: int) -> None:
            data.add_new(Tag(keyword), "LO", "1.5x")

        assert self.doubts(tmp_path / "scan", spoil) == []

    def test_numbers_that_begin_late_or_leave_some_out(self, tmp_path: Path) -> None:
        def spoil(data: Dataset, number: int) -> None:
            data.InstanceNumber = 4 + number + 2 * (number > 2)

        first, gap = self.doubts(tmp_path / "scan", spoil)
        assert first == "instance numbers begin at 4: slices before may be missing"
        assert gap == "instance numbers 7, 8 are not there, although no place is empty"

    def test_one_slice_of_another_rescale(self, tmp_path: Path) -> None:
        (text,) = self.doubts(tmp_path / "scan", element("RescaleIntercept", "0", 2))
        assert "I002.dcm differ from the other slices'; each is applied" in text

    def test_stored_numbers_without_rescale(self, tmp_path: Path) -> None:
        def spoil(data: Dataset, number: int) -> None:
            del data.RescaleSlope, data.RescaleIntercept

        (text,) = self.doubts(tmp_path / "scan", spoil)
        assert "taken for HU" in text
        assert np.array_equal(sitk.GetArrayFromImage(read_series(the_series(tmp_path / "scan"))), hu() + 1024)

    def test_a_direction_that_is_a_little_off(self, tmp_path: Path) -> None:
        def spoil(data: Dataset, number: int) -> None:
            data.ImagePositionPatient = ["0", f"{0.09 * number:.4f}", f"{100 * number}"]

        (text,) = self.doubts(tmp_path / "scan", spoil)
        assert "disagree by 0.45 mm" in text
