"""The values of a series are exactly those of its files, each by its own header; anything else is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_series import OBLIQUE, enhanced, hu, save, slices, write
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_rescale
from pydicom.uid import HTJ2KLossless, JPEG2000Lossless, RLELossless

from duomod.datasets.dicom.codec import stored_numbers
from duomod.datasets.dicom.find import find_series
from duomod.datasets.dicom.header import Unusable
from duomod.datasets.dicom.pixels import read_series
from duomod.errors import InputError


def volume_of(folder: Path) -> NDArray[np.generic]:
    found = find_series(folder)
    assert found.problems == []
    (series,) = found.series
    array: NDArray[np.generic] = sitk.GetArrayFromImage(read_series(series))
    return array


def refusal(folder: Path) -> str:
    found = find_series(folder)
    assert found.problems == []
    with pytest.raises(InputError) as caught:
        read_series(found.series[0])
    (text,) = caught.value.problems
    assert text.startswith(f"{folder}: ")
    return text


@pytest.mark.parametrize("kind", ["whole", "fractions", "large"])
def test_each_slice_is_rescaled_by_its_own_header(tmp_path: Path, kind: str) -> None:
    def spoil(data: Dataset, number: int) -> None:
        data.Modality = "PT" if kind == "fractions" else "CT"
        slope, intercept = {
            "whole": (1 + number % 2, -1024 * (number > 0)),
            "fractions": (0.37 + number / 7, -0.1 * number),
            "large": (100, -100_000),
        }[kind]
        data.RescaleSlope, data.RescaleIntercept = f"{slope:.10g}", f"{intercept:.10g}"

    folder = write(tmp_path / "scan", slices(), spoil)
    volume = volume_of(folder)
    assert volume.dtype == {"whole": np.int16, "fractions": np.float64, "large": np.int32}[kind]
    for path, ours in zip(sorted(folder.iterdir()), volume, strict=True):
        data = dcmread(path)
        assert np.array_equal(ours, apply_rescale(data.pixel_array, data))


@pytest.mark.parametrize("reverse", [False, True])
def test_frames_of_one_file_are_the_slices(tmp_path: Path, reverse: bool) -> None:
    single = slices(OBLIQUE)
    one = enhanced(single[::-1] if reverse else single)
    (several,) = find_series(write(tmp_path / "several", single)).series
    (frames,) = find_series(write(tmp_path / "frames", [one])).series
    assert frames.geometry == several.geometry
    assert frames.modality == "MR"
    assert np.array_equal(volume_of(tmp_path / "frames"), hu())
    assert find_series(tmp_path / "frames" / "I000.dcm").series[0].case_id == "I000"


def test_a_volume_that_itk_wrote_into_one_file(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray((hu() + 1024).astype(np.uint16))
    image.SetSpacing((0.7, 0.9, 2.5))
    sitk.WriteImage(image, str(tmp_path / "multi.dcm"))
    (series,) = find_series(tmp_path).series
    assert series.geometry.spacing == pytest.approx((0.7, 0.9, 2.5))
    assert np.array_equal(sitk.GetArrayFromImage(read_series(series)), hu() + 1024)
    # ITK writes "other", which says nothing.
    assert (series.modality, series.modality_name) == (None, "")
    assert series.called == f"{tmp_path / 'multi.dcm'} (6 frames)"


def test_frames_have_their_own_rescale(tmp_path: Path) -> None:
    one = enhanced(slices())
    group = one.PerFrameFunctionalGroupsSequence[2].PixelValueTransformationSequence[0]
    group.RescaleSlope, group.RescaleIntercept = "2", "0"
    expected = hu().astype(int)
    expected[2] = (expected[2] + 1024) * 2
    assert np.array_equal(volume_of(write(tmp_path / "scan", [one])), expected)


@pytest.mark.parametrize(
    ("frames", "words"),
    [(5, "5 frames, but the places of 6"), (None, "6 frames, but no place for each of them"), (6, "two echoes")],
)
def test_frames_that_are_no_stack(tmp_path: Path, frames: int | None, words: str) -> None:
    one = enhanced(slices())
    if words == "two echoes":
        for number, group in enumerate(one.PerFrameFunctionalGroupsSequence):
            group.MREchoSequence = [Dataset()]
            group.MREchoSequence[0].EffectiveEchoTime = 2.0 + number % 2
        words = "EffectiveEchoTime: 2.0, 3.0 in I000.dcm"
    elif frames is None:
        del one.PerFrameFunctionalGroupsSequence
    else:
        one.NumberOfFrames = frames
    (text,) = find_series(write(tmp_path / "scan", [one])).problems
    assert words in text


class TestDamage:
    def cut(self, folder: Path, name: str, size: int) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:size])

    def test_pixel_data_that_are_cut_off(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "scan", slices())
        self.cut(folder, "I003.dcm", -10)
        self.cut(folder, "I005.dcm", -10)
        assert "PixelData shorter than the 40 bytes of 5 x 4 voxels in I003.dcm, I005.dcm;" in refusal(folder)

    @pytest.mark.parametrize(
        ("keyword", "value", "word"),
        [("Rows", 6000, "shorter"), ("Rows", 4, "longer"), ("Columns", 3, "longer"), ("Columns", 5, "shorter")],
    )
    def test_rows_and_columns_that_the_pixels_do_not_fill(
        self, tmp_path: Path, keyword: str, value: int, word: str
    ) -> None:
        folder = write(tmp_path / "scan", slices(), lambda data, number: setattr(data, keyword, value))
        assert f"PixelData {word} than the" in refusal(folder)

    def test_numbers_of_more_bits_than_the_header_says(self, tmp_path: Path) -> None:
        def spoil(data: Dataset, number: int) -> None:
            data.BitsStored, data.HighBit = 9, 8

        assert "numbers that need more than the 9 bits of BitsStored in I003.dcm, I004.dcm, I005.dcm" in refusal(
            write(tmp_path / "scan", slices(), spoil)
        )

    def test_the_highest_bit_is_not_the_last_one_stored(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "scan", slices(), lambda data, number: setattr(data, "HighBit", 15))
        assert "BitsStored 12 and HighBit 15 of 16" in refusal(folder)

    def test_negative_numbers_of_few_bits(self, tmp_path: Path) -> None:
        """Twelve bits of a negative number, the other four unset: its sign is the twelfth bit."""

        def spoil(data: Dataset, number: int) -> None:
            data.PixelRepresentation, data.RescaleIntercept = 1, "0"
            data.PixelData = (hu()[number].astype("<i2") & 0xFFF).astype("<u2").tobytes()

        assert np.array_equal(volume_of(write(tmp_path / "scan", slices(), spoil)), hu())

    def test_pixels_that_cannot_be_unpacked_here(self, tmp_path: Path) -> None:
        def spoil(data: Dataset, number: int) -> None:
            packed(data, HTJ2KLossless, b"\xff\x4f")

        text = refusal(write(tmp_path / "scan", slices(), spoil))
        assert "High-Throughput JPEG 2000" in text
        assert "gdcmconv --raw" in text


def packed(data: Dataset, syntax: str, stream: bytes) -> None:
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.PixelData = encapsulate([stream])
    data["PixelData"].is_undefined_length = True


class TestPacked:
    """What other programs packed: the numbers are those of the plain file, or of GDCM."""

    @pytest.mark.parametrize(
        "name",
        [
            "MR_small_RLE.dcm",
            "MR_small_jp2klossless.dcm",
            "MR_small_jpeg_ls_lossless.dcm",
            "MR_small_bigendian.dcm",
            "MR_small_implicit.dcm",
        ],
    )
    def test_without_loss(self, name: str) -> None:
        plain = stored_numbers(dcmread(example("MR_small.dcm")))
        assert plain.shape == (1, 64, 64)
        assert np.array_equal(stored_numbers(dcmread(example(name))), plain)

    @pytest.mark.parametrize(
        "name", ["JPGExtended.dcm", "JPEGLSNearLossless_16.dcm", "J2K_pixelrep_mismatch.dcm", "693_J2KI.dcm"]
    )
    def test_as_gdcm_unpacks(self, name: str) -> None:
        data = dcmread(example(name))
        image = sitk.ReadImage(str(example(name)), imageIO="GDCMImageIO")
        values = stored_numbers(data) * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
        assert np.array_equal(values, sitk.GetArrayFromImage(image).reshape(values.shape))

    @pytest.mark.parametrize("kind", ["i2", "u2", "u1"])
    def test_jpeg_lossless(self, tmp_path: Path, kind: str) -> None:
        limits = np.iinfo(kind)
        values = np.random.default_rng(0).integers(limits.min, limits.max, (1, 10, 8), endpoint=True).astype(kind)
        path = tmp_path / "a.dcm"
        sitk.WriteImage(sitk.GetImageFromArray(values), str(path), useCompression=True, compressor="JPEG")
        data = dcmread(path)
        assert "JPEG Lossless" in data.file_meta.TransferSyntaxUID.name
        assert np.array_equal(stored_numbers(data), values)

    @pytest.mark.parametrize(
        ("name", "spoil", "words"),
        [
            ("MR_small_jp2klossless.dcm", lambda frame: frame[:-200], "cut off"),
            ("MR_small_jpeg_ls_lossless.dcm", lambda frame: frame[:-200], "cut off"),
            (
                "MR_small_jpeg_ls_lossless.dcm",
                lambda frame: frame[:200] + frame[-20:],
                "pixel data that cannot be read",
            ),
            ("MR_small_RLE.dcm", lambda frame: frame[:-900], "pixel data that cannot be read"),
        ],
    )
    def test_damaged(self, name: str, spoil: Callable[[bytes], bytes], words: str) -> None:
        data = dcmread(example(name))
        frame = data.PixelData[16:-8] if b"\xff\xd9" not in data.PixelData[-12:] else data.PixelData[16:]
        data.PixelData = encapsulate([spoil(frame)])
        with pytest.raises(Unusable) as caught:
            stored_numbers(data)
        assert words in caught.value.what

    @pytest.mark.parametrize(("rows", "columns"), [(32, 128), (64, 63)])
    @pytest.mark.parametrize("name", ["MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_RLE.dcm"])
    def test_another_size_than_the_stream(self, name: str, rows: int, columns: int) -> None:
        data = dcmread(example(name))
        data.Rows, data.Columns = rows, columns
        if name == "MR_small_RLE.dcm" and rows * columns == 64 * 64:
            pytest.skip("run lengths know no rows")
        with pytest.raises(Unusable):
            stored_numbers(data)


def example(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom came without its example {name}")
    return Path(str(path))


def test_the_syntaxes_named_above_are_what_they_are_called() -> None:
    assert dcmread(example("MR_small_RLE.dcm")).file_meta.TransferSyntaxUID == RLELossless
    assert dcmread(example("MR_small_jp2klossless.dcm")).file_meta.TransferSyntaxUID == JPEG2000Lossless


def test_float_pixel_data(tmp_path: Path) -> None:
    def spoil(data: Dataset, number: int) -> None:
        del data.PixelData, data.RescaleSlope, data.RescaleIntercept, data.BitsStored, data.HighBit
        del data.PixelRepresentation
        data.BitsAllocated = 32
        data.FloatPixelData = (hu()[number] + np.float32(0.5)).astype("<f4").tobytes()

    assert np.array_equal(volume_of(write(tmp_path / "scan", slices(modality="MR"), spoil)), hu() + np.float32(0.5))

    def spoil_one(data: Dataset, number: int) -> None:
        spoil(data, number)
        if number == 3:
            data.FloatPixelData = np.full((5, 4), np.nan, "<f4").tobytes()

    assert "voxels that are NaN or infinite in I003.dcm" in refusal(
        write(tmp_path / "nan", slices(modality="MR"), spoil_one)
    )


def test_a_file_that_changes_in_between(tmp_path: Path) -> None:
    folder = write(tmp_path / "scan", slices())
    (series,) = find_series(folder).series
    save(folder / "I002.dcm", slices(volume=np.zeros((6, 9, 9), np.int16))[2])
    with pytest.raises(InputError, match=r"a file that changed while it was read in I002\.dcm"):
        read_series(series)
