"""Label maps written on exactly the scan's grid."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from toy_model import (
    affine_of,
    assert_nearly_equal,
    hu_volume,
    write_scan,
)

from duomod.datasets.grid import Geometry, read_geometry
from duomod.datasets.scan import read_image
from duomod.inference.nifti import write_labels


class TestWriteLabels:
    def labels(self, path: Path) -> sitk.Image:
        grid = Geometry.of(sitk.ReadImage(str(path)))
        array = np.random.default_rng(0).integers(0, 3, grid.shape).astype(np.uint8)
        return grid.image_of(array)

    @pytest.mark.parametrize("endian", ["<", ">"])
    @pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
    def test_the_header_says_the_same_place_and_nothing_of_the_patient(
        self, tmp_path: Path, endian: str, name: str
    ) -> None:
        header = nibabel.Nifti1Header(endianness=endian)
        header["descrip"] = b"Doe, John"
        header["db_name"] = b"Doe"
        header.set_xyzt_units("mm")
        scan = nibabel.Nifti1Image(hu_volume(0).astype(f"{endian}i2"), affine_of(3, (0.7, 0.8, 5.0)), header)
        scan.header.set_slope_inter(2.0, -1024.0)
        nibabel.save(scan, tmp_path / name)
        labels = self.labels(tmp_path / name)
        write_labels(labels, tmp_path / "out.nii.gz", tmp_path / name)
        result, source = nibabel.load(tmp_path / "out.nii.gz"), nibabel.load(tmp_path / name)
        assert np.array_equal(result.affine, source.affine)
        assert result.header.get_qform(coded=True)[1] == source.header.get_qform(coded=True)[1]
        assert result.header.get_sform(coded=True)[1] == source.header.get_sform(coded=True)[1]
        assert result.header.get_xyzt_units() == source.header.get_xyzt_units()
        assert result.get_data_dtype() == np.uint8
        assert np.array_equal(np.asarray(result.dataobj).T, sitk.GetArrayFromImage(labels))
        assert b"Doe" not in gzip.decompress((tmp_path / "out.nii.gz").read_bytes())[:352]
        read = sitk.ReadImage(str(tmp_path / "out.nii.gz"))
        assert Geometry.of(read) == Geometry.of(labels)
        assert np.array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(labels))

    def test_without_a_scan(self, tmp_path: Path) -> None:
        labels = self.labels(write_scan(tmp_path / "scan.nii.gz", 4))
        write_labels(labels, tmp_path / "out.nii.gz")
        read = sitk.ReadImage(str(tmp_path / "out.nii.gz"))
        assert_nearly_equal(Geometry.of(read), Geometry.of(labels))
        assert np.array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(labels))

    @pytest.mark.parametrize("odd", ["pixdim", "qform", "no form", "qform only", "bits", "slope"])
    def test_the_mask_of_an_odd_scan_lies_on_it_for_every_reader(self, tmp_path: Path, odd: str) -> None:
        """nibabel places by the sform, ITK's spacing is pixdim's and its direction may be the qform's."""
        scan = nibabel.Nifti1Image(hu_volume(0), affine_of(3, (0.7, 0.8, 5.0)))
        scan.set_sform(scan.affine, 2)
        scan.set_qform(scan.affine, 1)
        if odd == "pixdim":
            scan.header["pixdim"][1:4] = (1, 1, 2)
        elif odd == "qform":
            scan.set_qform(affine_of(3, (0.7, 0.8, 5.0)) @ affine_of(7, (1.0, 1.0, 1.0)), 1)
            scan.header["pixdim"][1:4] = (0.7, 0.8, 5.0)
        elif odd in ("no form", "qform only"):
            scan.header["sform_code"] = 0
            scan.header["qform_code"] = int(odd == "qform only")
        path = tmp_path / "scan.nii"
        nibabel.save(scan, path)
        if odd in ("bits", "slope"):
            data = bytearray(path.read_bytes())
            struct.pack_into(*(("<h", data, 72, 64) if odd == "bits" else ("<2f", data, 112, 0.0, 99.0)))
            path.write_bytes(data)
        grid = read_geometry(path)
        write_labels(grid.image_of(np.ones(grid.shape, np.uint8)), tmp_path / "out.nii.gz", path)
        result, source = nibabel.load(tmp_path / "out.nii.gz"), nibabel.load(path)
        assert np.array_equal(result.affine, source.affine)
        assert read_geometry(tmp_path / "out.nii.gz") == grid
        assert Geometry.of(sitk.ReadImage(str(tmp_path / "out.nii.gz"))) == Geometry.of(sitk.ReadImage(str(path)))

    @pytest.mark.parametrize("name", ["scan.nrrd", "scan.mha", "scan.mhd"])
    def test_the_mask_of_another_format_lies_on_its_scan(self, tmp_path: Path, name: str) -> None:
        labels = self.labels(write_scan(tmp_path / "scan.nii.gz", 4))
        sitk.WriteImage(labels, str(tmp_path / name))
        scan = read_image(tmp_path / name)
        write_labels(scan, tmp_path / "out.nii.gz", tmp_path / name)
        read = read_image(tmp_path / "out.nii.gz")
        assert Geometry.of(read).differences(Geometry.of(labels)) == []
        assert np.array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(labels))

    def test_an_almost_straight_grid_is_written(self, tmp_path: Path) -> None:
        tilted = (1.0, 9e-5, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
        grid = Geometry(size=(50, 40, 30), spacing=(0.7, 0.8, 2.5), origin=(1.0, 2.0, 3.0), direction=tilted)
        write_labels(grid.image_of(np.ones(grid.shape, np.uint8)), tmp_path / "out.nii.gz")
        assert read_geometry(tmp_path / "out.nii.gz").differences(grid) == []

    def test_a_folder_that_cannot_be_made_is_an_os_error(self, tmp_path: Path) -> None:
        labels = self.labels(write_scan(tmp_path / "scan.nii.gz", 4))
        with pytest.raises(OSError, match=r"scan\.nii\.gz"):
            write_labels(labels, tmp_path / "scan.nii.gz" / "out.nii.gz")
