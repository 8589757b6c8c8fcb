"""Images in memory: every kind ends on the grid that an independent reader gives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from duomod.errors import InputError
from duomod.inference.in_memory import like_scan, to_itk


def rotation(angles: tuple[float, float, float]) -> NDArray[np.float64]:
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (a for a in range(3) if a != axis)
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def affine_of(angles: tuple[float, float, float], spacing: tuple[float, ...], flip: int = 1) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles) @ np.diag([flip * spacing[0], *spacing[1:]])
    affine[:3, 3] = (-31.5, 12.25, 7.0)
    return affine


def voxels() -> NDArray[np.int16]:
    return np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)


angle = st.floats(-1.5, 1.5)
length = st.floats(0.3, 8.0)


@settings(max_examples=60, deadline=None)
@given(st.tuples(angle, angle, angle), st.tuples(length, length, length), st.sampled_from([1, -1]))
def test_every_voxel_lies_where_nibabel_puts_it(angles: Any, spacing: Any, flip: int) -> None:
    affine = affine_of(angles, spacing, flip)
    image = to_itk((voxels(), None, affine))
    for index in ((0, 0, 0), (2, 3, 4), (1, 0, 3)):
        ras = nibabel.affines.apply_affine(affine, index)
        lps = image.TransformIndexToPhysicalPoint(index)
        assert np.allclose(np.asarray(lps) * (-1, -1, 1), ras, atol=1e-9 + 1e-6 * np.abs(ras).max())
        assert image[index] == voxels()[index]


def test_a_nibabel_image_equals_the_file_it_was_read_from(tmp_path: Path) -> None:
    affine = affine_of((0.1, -0.2, 0.3), (0.8, 0.9, 2.5))
    nibabel.save(nibabel.Nifti1Image(voxels(), affine), tmp_path / "scan.nii.gz")
    ours = to_itk(nibabel.load(tmp_path / "scan.nii.gz"))
    itk = sitk.ReadImage(str(tmp_path / "scan.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(itk))
    for ask in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert np.allclose(getattr(ours, ask)(), getattr(itk, ask)(), atol=1e-5)


def test_labels_go_back_in_the_kind_of_the_scan() -> None:
    affine = affine_of((0.1, -0.2, 0.3), (0.8, 0.9, 2.5))
    scan = nibabel.Nifti1Image(voxels(), affine)
    scan.header["descrip"] = b"Doe, Jane"
    scan.set_sform(affine, 4)
    labels = sitk.Cast(to_itk(scan) > 30, sitk.sitkUInt8)
    back = like_scan(labels, scan)
    assert isinstance(back, nibabel.Nifti1Image)
    assert np.array_equal(back.affine, scan.affine)
    assert back.get_data_dtype() == np.uint8
    assert np.array_equal(np.asanyarray(back.dataobj), voxels() > 30)
    assert int(back.header["sform_code"]) == 4
    assert b"Doe" not in back.header.binaryblock
    array = like_scan(labels, (voxels(), None, affine))
    assert isinstance(array, np.ndarray)
    assert np.array_equal(array, voxels() > 30)
    assert like_scan(labels, to_itk(scan)) is labels


def test_a_spacing_alone_is_enough() -> None:
    image = to_itk((voxels(), (0.5, 1.0, 3.0), None))
    assert image.GetSpacing() == (0.5, 1.0, 3.0)
    assert image.GetDirection() == (-1, 0, 0, 0, -1, 0, 0, 0, 1)


@pytest.mark.parametrize("kind", ["float16", "bool", ">i2", "float64", "uint8"])
def test_types_that_itk_lacks_are_converted(kind: str) -> None:
    array = (voxels() > 20).astype(kind)
    image = to_itk((array, (1, 1, 1), None))
    assert np.array_equal(sitk.GetArrayFromImage(image).T, array.astype(float))


sheared = np.eye(4)
sheared[0, 1] = 0.2
nan = voxels().astype(float)
nan[0, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("scan", "message"),
    [
        ((voxels(), None, None), "spacing in mm or its affine"),
        ((voxels(), (1, 1, 2), np.eye(4)), "disagrees with the affine"),
        ((voxels(), None, sheared), "sheared"),
        ((voxels(), None, np.zeros((4, 4))), "no extent"),
        ((voxels(), None, np.full((4, 4), np.nan)), "4x4 matrix of finite"),
        ((voxels(), None, np.eye(3)), "4x4 matrix"),
        ((voxels(), (1, 0, 1), None), "three positive numbers"),
        ((voxels()[0], (1, 1, 1), None), "give a 3D array"),
        ((nan, (1, 1, 1), None), r"1 voxel\(s\) of the scan are NaN"),
        ((voxels().astype(complex), (1, 1, 1), None), "give real numbers"),
        ((voxels(), (1, 1, 1)), "a tuple of 2"),
        (sitk.GetImageFromArray(nan), "NaN or infinite"),
        (sitk.Image((4, 4), sitk.sitkInt16), "give 3D"),
        ("scan.nii.gz", "cannot be a str"),
    ],
)
def test_what_has_no_meaning_is_refused(scan: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_itk(scan)
