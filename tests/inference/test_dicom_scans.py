"""DICOM series are predicted like the same scan as NIfTI: from folders at any depth, archives, beside other scans."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_series import save, slices, write
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from toy_model import predict, problems_of, raw_file

from duomod.datasets.dicom.find import find_series
from duomod.datasets.dicom.pixels import read_series
from duomod.errors import DuomodError
from duomod.workspace import PREDICTED


def voxels(seed: int = 0) -> NDArray[np.int16]:
    """HU that look like a body in air."""
    values = np.random.default_rng(seed).normal(20, 120, (14, 16, 18))
    values[:, :4] = -1000
    return values.clip(-1000, 2000).astype(np.int16)


@pytest.fixture
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    place = tmp_path / "unpacked here"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield
    assert list(place.iterdir()) == []


def labels(path: Path) -> NDArray[np.generic]:
    array: NDArray[np.generic] = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    return array


def test_a_series_equals_the_same_scan_as_nifti(checkpoint: Path, tmp_path: Path) -> None:
    def spoil(data: Dataset, number: int) -> None:
        data.PixelSpacing = ["0.75", "0.5"]  # NIfTI's float32 holds these exactly
        data.RescaleIntercept = str(-1024 + 8 * number)

    folder = write(tmp_path / "both" / "series", slices(volume=voxels()), spoil)
    (series,) = find_series(folder).series
    sitk.WriteImage(read_series(series), str(tmp_path / "both" / "file.nii.gz"))
    out = tmp_path / "out"
    predict(model_path=checkpoint, output_path=out, input_path=tmp_path / "both")
    one, two = labels(out / "series.nii.gz"), labels(out / "file.nii.gz")
    assert len(np.unique(one)) > 1
    assert np.array_equal(one, two)


def test_patients_studies_and_series(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "patients"
    for number, name in enumerate(("p1/ct", "p2/ct")):
        write(root / name, slices(volume=voxels(number), uid=f"1.{number}"))
    (root / "p1" / "report.pdf").write_text("x")
    out = tmp_path / "out"
    predict(model_path=checkpoint, output_path=out, input_path=root)
    assert sorted(path.name for path in out.glob("*.nii.gz")) == ["p1_ct.nii.gz", "p2_ct.nii.gz"]
    assert "not read: report.pdf" in capsys.readouterr().err
    record = json.loads((out / PREDICTED).read_text(encoding="utf-8"))
    assert record["modalities"] == {"p1_ct": "CT", "p2_ct": "CT"}


def test_a_broken_series_stops_no_other(checkpoint: Path, tmp_path: Path) -> None:
    root = tmp_path / "patients"
    for name in ("good", "header", "pixels"):
        write(root / name, slices(volume=voxels(), uid=f"1.{len(name)}"))
    (root / "header" / "I003.dcm").write_bytes(b"")
    whole = (root / "pixels" / "I005.dcm").read_bytes()
    (root / "pixels" / "I005.dcm").write_bytes(whole[:-7])
    out = tmp_path / "out"
    with pytest.raises(DuomodError, match="2 of 3 scans could not be predicted") as caught:
        predict(model_path=checkpoint, output_path=out, input_path=root)
    assert [path.name for path in out.glob("*.nii.gz")] == ["good.nii.gz"]
    assert f"{root / 'header'}: an empty file, though named like a slice, in I003.dcm" in str(caught.value)
    assert f"{root / 'pixels'}: PixelData shorter than" in str(caught.value)


def test_one_of_several_series(checkpoint: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "p", slices(volume=voxels(1), uid="1.1"), name="a{:02d}")
    write(folder, slices(volume=voxels(2), uid="1.2"), name="b{:02d}")
    call = {"model_path": checkpoint, "input_path": folder}
    text = problems_of(lambda: predict(**call, output_path=tmp_path / "none"))
    assert "holds 2 DICOM series; choose one with --series" in text
    predict(**call, output_path=tmp_path / "out", series="1.2")
    alone = write(tmp_path / "alone", slices(volume=voxels(2), uid="1.2"))
    predict(model_path=checkpoint, input_path=alone, output_path=tmp_path / "out2")
    assert np.array_equal(labels(tmp_path / "out" / "p.nii.gz"), labels(tmp_path / "out2" / "alone.nii.gz"))


@pytest.mark.usefixtures("nothing_left")
class TestArchives:
    def test_a_series(self, checkpoint: Path, tmp_path: Path) -> None:
        folder = write(tmp_path / "john", slices(volume=voxels()))
        archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", folder))
        predict(model_path=checkpoint, input_path=folder, output_path=tmp_path / "out")
        predict(model_path=checkpoint, input_path=archive, output_path=tmp_path / "out2")
        assert np.array_equal(labels(tmp_path / "out/john.nii.gz"), labels(tmp_path / "out2/packed.nii.gz"))

    def test_the_same_archive_again_keeps_its_results(self, raw: Path, checkpoint: Path, tmp_path: Path) -> None:
        (tmp_path / "scans").mkdir()
        shutil.copy(raw_file(raw, "a_001"), tmp_path / "scans")
        archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "scans"))
        out = tmp_path / "out"
        predict(model_path=checkpoint, input_path=archive, output_path=out)
        before = (out / "a_001.nii.gz").stat().st_mtime_ns
        predict(model_path=checkpoint, input_path=archive, output_path=out)
        assert (out / "a_001.nii.gz").stat().st_mtime_ns == before
        # A temporary path would mean nothing to whoever looks for the scan later.
        assert json.loads((out / PREDICTED).read_text(encoding="utf-8"))["scans"] == {}

    def test_a_broken_one_is_named(self, checkpoint: Path, tmp_path: Path) -> None:
        folder = write(tmp_path / "john", slices(volume=voxels()))
        save(folder / "I003.dcm", slices(volume=np.zeros((14, 9, 9), np.int16))[3])
        archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", folder))
        text = problems_of(lambda: predict(model_path=checkpoint, input_path=archive, output_path=tmp_path / "out"))
        assert "packed.zip: slices that are not of one stack" in text
        assert "I003.dcm" in text
        assert not (tmp_path / "out").exists()
