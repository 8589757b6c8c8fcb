"""MetaImage and NRRD: good files are read as ITK reads them; what ITK would fill in or follow is refused or said."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from duomod.datasets.grid import Geometry
from duomod.datasets.labels import read_labels
from duomod.datasets.scan import doubts, image_problems, read_header, read_image, to_array

VOXELS = np.random.default_rng(0).integers(0, 100, (5, 6, 7))


def image(kind: str = "i2", turned: bool = True) -> sitk.Image:
    made = sitk.GetImageFromArray(VOXELS.astype(kind))
    made.SetSpacing((0.7, 0.8, 2.5))
    made.SetOrigin((-100.25, 20.5, 333.125))
    turn = Rotation.from_euler("xyz", (5, 170, 20), degrees=True).as_matrix() if turned else np.diag([1.0, -1.0, -1.0])
    made.SetDirection(turn.ravel().tolist())
    return made


def write(path: Path, *changes: tuple[bytes, bytes], packed: bool = False, kind: str = "i2") -> Path:
    """A good file, with patterns in its header replaced."""
    sitk.WriteImage(image(kind), str(path), packed)
    data = path.read_bytes()
    for old, new in changes:
        data, count = re.subn(old, new, data, count=1)
        assert count == 1, old
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.mhd", "A.NRRD", "a.MHA"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_good_files_are_read_as_itk_reads_them(tmp_path: Path, name: str, packed: bool, kind: str) -> None:
    path = write(tmp_path / name.lower(), packed=packed, kind=kind)
    oracle = sitk.ReadImage(str(path))
    path = path.rename(tmp_path / name)
    found, problems = image_problems(path)
    assert (problems, doubts(path)) == ([], [])
    assert found is not None
    assert np.array_equal(to_array(found), to_array(oracle))
    assert to_array(found).dtype == np.dtype(kind)
    ours, itks = Geometry.of(found), Geometry.of(oracle)
    assert np.allclose(ours.direction, itks.direction, rtol=0, atol=1e-12)
    assert (ours.size, ours.spacing, ours.origin) == (itks.size, pytest.approx(itks.spacing, abs=1e-12), itks.origin)
    assert Geometry.model_validate(read_header(path), from_attributes=True) == ours
    assert np.array_equal(read_labels(path)[0], VOXELS)


@pytest.mark.parametrize("space", ["right-anterior-superior", "RAS", "left-anterior-superior", "LPS"])
def test_a_nrrds_world_is_heeded(tmp_path: Path, space: str) -> None:
    path = write(tmp_path / "a.nrrd", (rb"space: .*", b"space: " + space.encode()))
    assert doubts(path) == []
    assert Geometry.of(read_image(path)).differences(Geometry.of(sitk.ReadImage(str(path)))) == []


def test_the_order_of_bytes_is_heeded(tmp_path: Path) -> None:
    swapped = VOXELS.astype(">i2").tobytes()
    for name, old, new in (("a.nrrd", b"endian: little", b"endian: big"), ("a.mha", b"MSB = False", b"MSB = True")):
        path = write(tmp_path / name, (old, new))
        data = path.read_bytes()
        path.write_bytes(data[: -len(swapped)] + swapped)
        assert np.array_equal(to_array(read_image(path)), VOXELS)


DOUBTFUL = [
    ("a.nrrd", rb"space: .*\n", b"", "does not say fully where it lies"),
    ("a.nrrd", rb"space: .*\n", b"space: scanner-xyz\n", "does not say fully where it lies"),
    ("a.nrrd", rb"space origin: .*\n", b"", "does not say fully where it lies"),
    ("a.nrrd", rb"space directions: .*\n", b"spacings: 1 2 3\n", "does not say fully where it lies"),
    ("a.mha", rb"TransformMatrix.*\n", b"", "says no orientation or no origin"),
    ("a.mha", rb"Offset.*\n", b"", "says no orientation or no origin"),
    ("a.mha", rb"DimSize = 7 6 5", b"DimSize = 7 6 4", "84 bytes more"),
    ("a.nrrd", rb"sizes: 7 6 5", b"sizes: 7 6 4", "84 bytes more"),
]


@pytest.mark.parametrize(("name", "old", "new", "words"), DOUBTFUL)
def test_what_is_doubtful_is_said(tmp_path: Path, name: str, old: bytes, new: bytes, words: str) -> None:
    path = write(tmp_path / name, (old, new))
    assert image_problems(path)[1] == []
    (doubt,) = doubts(path)
    assert doubt.startswith(f"{path}: ")
    assert words in doubt


REFUSED = [
    *[("a.mha", rb"ElementSpacing = 0\S+", b"ElementSpacing = " + v, "") for v in (b"0", b"-1", b"nan", b"1e9", b"x")],
    ("a.mha", rb"ElementSpacing = .*\n", b"", "says no voxel size"),
    ("a.mha", rb"TransformMatrix = .*", b"TransformMatrix = 2 0 0 0 2 0 0 0 2", "no rotation"),
    ("a.mha", rb"TransformMatrix = .*", b"TransformMatrix = 1 0 0 0.3 0.954 0 0 0 1", "sheared"),
    ("a.mha", rb"Offset = \S+", b"Offset = inf", "damaged"),
    ("a.mha", rb"DimSize = 7 6 5", b"DimSize = 7.0 6 5", "not a 3D volume"),
    ("a.mha", rb"DimSize = 7 6 5", b"DimSize = 7 6 0", "not a 3D volume"),
    ("a.mha", rb"DimSize = 7 6 5", b"DimSize = 30000 30000 30000", "litres"),
    ("a.mha", rb"DimSize = 7 6 5", b"DimSize = 7 6 50", "truncated"),
    ("a.mha", rb"DimSize = 7 6 5", b"DimSize = 7 6 2", "more than one volume"),
    ("a.mha", rb"NDims = 3", b"NDims = 4", "4 dimensions"),
    ("a.mha", rb"MET_SHORT", b"MET_SHORT_ARRAY", "one real value"),
    ("a.mha", rb"ElementType", b"ElementNumberOfChannels = 3\nElementType", "one real value"),
    ("a.mha", rb"ElementType", b"ElementToIntensityFunctionSlope = 2\nElementType", "not read"),
    ("a.mha", rb"ElementType", b"DistanceUnits = um\nElementType", "not read"),
    ("a.mha", rb"ElementType", b"ElementSpacing = 1 1 1\nElementType", "twice"),
    ("a.mha", rb"BinaryData = True", b"BinaryData = False", "voxels are text"),
    ("a.mha", rb"BinaryDataByteOrderMSB = False\n", b"", "order of bytes"),
    ("a.mha", rb"= LOCAL", b"= ../secret.raw", "other files"),
    ("a.mha", rb"= LOCAL", b"= /etc/passwd", "other files"),
    ("a.mha", rb"= LOCAL", b"= LIST", "other files"),
    ("a.mhd", rb"= a.raw", b"= slice%03d.raw 1 5 1", "other files"),
    ("a.mhd", rb"= a.raw", b"= gone.raw", "no file gone.raw"),
    ("a.nrrd", rb"space directions: \(\S+", b"space directions: none", "damaged"),
    ("a.nrrd", rb"space directions: .*", b"space directions: (0,0,0) (0,1,0) (0,0,1)", "voxel size"),
    ("a.nrrd", rb"space directions: .*", b"space directions: (1,0,0) (0.3,1,0) (0,0,1)", "sheared"),
    ("a.nrrd", rb"space directions: .*\n", b"", "says no voxel size"),
    ("a.nrrd", rb"space origin: \(\S+?,", b"space origin: (nan,", "damaged"),
    ("a.nrrd", rb"sizes: 7 6 5", b"sizes: 7 6 50", "truncated"),
    ("a.nrrd", rb"dimension: 3", b"dimension: 4", "damaged"),
    ("a.nrrd", rb"type: short", b"type: block", "one real value"),
    ("a.nrrd", rb"endian: little\n", b"", "order of bytes"),
    ("a.nrrd", rb"encoding: raw", b"encoding: bzip2", "encoding"),
    ("a.nrrd", rb"encoding: raw", b"encoding: raw\ndata file: /etc/passwd", "another file"),
    ("a.nrrd", rb"encoding: raw", b"encoding: raw\nbyte skip: -1", "another file"),
    ("a.nrrd", rb"encoding: raw", b'encoding: raw\nspace units: "um" "um" "um"', "not in mm"),
    ("a.nrrd", rb"NRRD0004", b"NRRD0009", "no valid header"),
]


@pytest.mark.parametrize(("name", "old", "new", "words"), REFUSED)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, name: str, old: bytes, new: bytes, words: str) -> None:
    path = write(tmp_path / name, (old, new))
    found, problems = image_problems(path)
    assert found is None
    assert any(words in problem for problem in problems), problems
    assert all(problem.startswith(f"{path}: ") and "\n" not in problem for problem in problems)
    assert doubts(path) == []


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.mhd"])
@pytest.mark.parametrize("packed", [False, True])
def test_truncated_and_damaged_voxels_are_never_read(
    tmp_path: Path, name: str, packed: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / name, packed=packed)
    voxels = path if name != "a.mhd" else path.with_name("a.zraw" if packed else "a.raw")
    whole = voxels.read_bytes()
    for keep in (len(whole) - 1, len(whole) - 30, 1 if voxels is not path else len(whole) - 60):
        voxels.write_bytes(whole[:keep])
        found, problems = image_problems(path)
        assert found is None
        assert "truncated" in problems[0]
    if packed:
        voxels.write_bytes(whole[:-20] + bytes([whole[-20] ^ 0xFF]) + whole[-19:])
        assert "damaged" in image_problems(path)[1][0]
    assert capfd.readouterr() == ("", "")  # ITK would print


def test_several_problems_are_told_together(tmp_path: Path) -> None:
    changes = ((rb"MET_SHORT", b"MET_X"), (rb"DimSize = 7", b"DimSize = 0"), (rb"Offset = \S+", b"Offset = x"))
    assert len(image_problems(write(tmp_path / "a.mha", *changes))[1]) == 3


def test_other_files_with_these_names_are_refused(tmp_path: Path) -> None:
    for name in ("a.nrrd", "a.mha", "b.mhd"):
        (tmp_path / name).write_bytes(b"\x00hello\n" * 100)
        assert "no valid header" in image_problems(tmp_path / name)[1][0]
