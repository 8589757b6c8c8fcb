"""A grid of header variants: what is accepted lies and is valued as nibabel has it; what cannot be meant is refused."""

from __future__ import annotations

import gzip
import itertools
import struct
from collections.abc import Mapping
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from duomod.datasets.grid import Geometry
from duomod.datasets.labels import read_labels
from duomod.datasets.scan import doubts, image_problems, read_header, read_image, say_doubts, to_array
from duomod.errors import InputError

SHAPE = (5, 6, 7)
NAN, INF = float("nan"), float("inf")
VOXELS = np.random.default_rng(0).integers(0, 100, SHAPE)
TURNED = np.array(Rotation.from_euler("xyz", (5, 170, 20), degrees=True).as_matrix())
PLACE = np.block(
    [[TURNED * (0.7, 0.8, 2.5), np.array([[-100.0], [20.0], [333.0]])], [np.zeros((1, 3)), np.ones((1, 1))]]
)

#: Field -> where it lies in a header, and how.
FIELDS = {
    "dim": (40, "8h"), "datatype": (70, "h"), "bitpix": (72, "h"), "pixdim": (76, "8f"), "qfac": (76, "f"),
    "pixdim1": (80, "f"), "vox_offset": (108, "f"), "scl_slope": (112, "f"), "scl_inter": (116, "f"),
    "xyzt_units": (123, "B"), "qform_code": (252, "h"), "sform_code": (254, "h"), "quatern": (256, "3f"),
    "qoffset": (268, "3f"), "srow": (280, "12f"), "srow_x": (280, "4f"), "intent": (68, "h"), "magic": (344, "4s"),
}  # fmt: skip


def write(
    path: Path,
    changes: Mapping[str, object] | None = None,
    *,
    kind: str = "<i2",
    qform: int = 1,
    sform: int = 1,
    affine: np.ndarray = PLACE,
) -> Path:
    """A good file, with some fields of its header overwritten."""
    header = nibabel.Nifti1Header(endianness=kind[0])
    header.set_data_dtype(kind)
    image = nibabel.Nifti1Image(VOXELS.astype(kind), affine, header)
    image.set_qform(affine, qform)
    image.set_sform(affine, sform)
    plain = path.with_name("plain.nii")
    nibabel.save(image, plain)
    data = bytearray(plain.read_bytes())
    plain.unlink()
    for name, value in (changes or {}).items():
        offset, form = FIELDS[name]
        struct.pack_into(kind[0] + form, data, offset, *(value if isinstance(value, tuple) else (value,)))
    path.write_bytes(gzip.compress(bytes(data)) if path.name.endswith(".gz") else bytes(data))
    return path


def assert_as_nibabel(path: Path) -> sitk.Image:
    """The file is accepted, and grid and values are nibabel's; return the image."""
    image, problems = image_problems(path)
    assert problems == []
    assert image is not None
    oracle = nibabel.load(path)
    grid = Geometry.of(image)
    ours = np.diag([-1.0, -1.0, 1.0]) @ np.c_[grid.matrix, grid.origin]
    corners = np.array(list(itertools.product(*((0, n) for n in SHAPE), [1])), dtype=float)
    assert np.abs(corners @ (ours - oracle.affine[:3]).T).max() < 1e-4
    assert np.allclose(to_array(image).T, oracle.get_fdata(), rtol=1e-6)
    header = read_header(path)
    assert (header.size, header.spacing, header.origin, header.direction) == (
        image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection(),
    )  # fmt: skip
    return image


@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("codes", [(1, 1), (0, 1), (1, 0), (2, 3), (0, 4), (5, 0)])
def test_every_number_type_order_and_code(tmp_path: Path, kind: str, order: str, codes: tuple[int, int]) -> None:
    name = "a.nii.gz" if order == "<" else "a.nii"
    path = write(tmp_path / name, kind=order + kind, qform=codes[0], sform=codes[1])
    image = assert_as_nibabel(path)
    assert to_array(image).dtype == np.dtype(kind)
    assert doubts(path) == []
    assert np.array_equal(read_labels(path)[0].T, VOXELS)


@pytest.mark.parametrize("scale", [(1, 0), (0.5, -10), (-2, 3), (0, 0), (NAN, NAN), (NAN, 0), (0, NAN), (1, -1024)])
@pytest.mark.parametrize("kind", ["<i2", ">u1", "<f8"])
def test_every_scale(tmp_path: Path, scale: tuple[float, float], kind: str) -> None:
    path = write(tmp_path / "a.nii", {"scl_slope": scale[0], "scl_inter": scale[1]}, kind=kind)
    assert_as_nibabel(path)
    assert doubts(path) == []


@pytest.mark.parametrize("turn", range(24))
def test_sensible_headers_are_placed_by_itk_to_the_last_bit(tmp_path: Path, turn: int) -> None:
    """Results of earlier versions stay: they had their grids from ITK, which takes the spacing from pixdim."""
    matrix = Rotation.random(random_state=turn).as_matrix() if turn % 2 else np.diag(np.sign(TURNED[turn % 3]))
    affine = np.eye(4)
    affine[:3, :3] = matrix * (0.7123, 0.8456, 2.3)
    affine[:3, 3] = (-123.4, 56.7, 8.9)
    path = write(tmp_path / "a.nii", affine=affine)
    assert Geometry.of(read_image(path)) == Geometry.of(sitk.ReadImage(str(path)))


EDGES = (1.0, 2e-3, 2e-3, 5e-3, 0.0, 0.0, 0.0, 0.0)
DOUBTFUL = {
    "neither set": ({"qform_code": 0, "sform_code": 0}, "nobody knows where left and right are"),
    "pixdim against the sform": ({"pixdim1": 1.0}, "1 x 0.8 x 2.5 mm by pixdim, but 0.7 x 0.8 x 2.5 mm by the sform"),
    "qform against the sform": ({"quatern": (0.5, 0.8, 0.1)}, "mm apart; the sform counts"),
    "moved qform": ({"qoffset": (-100.0, 20.0, 353.0)}, "place voxels up to 20 mm apart"),
    "slope 0 with intercept": ({"scl_slope": 0.0, "scl_inter": -1024.0}, "intercept of -1024 is not applied"),
    "slope NaN with intercept": ({"scl_slope": NAN, "scl_inter": 5.0}, "intercept of 5 is not applied"),
    "bitpix": ({"bitpix": 8}, "8 bits per voxel, but its number type has 16"),
    "bitpix 0": ({"bitpix": 0}, "0 bits per voxel"),
    "micrometres taken for mm": (
        {"srow": (2e-3, 0.0, 0.0, 1.0, 0.0, 2e-3, 0.0, 1.0, 0.0, 0.0, 5e-3, 1.0), "qform_code": 0, "pixdim": EDGES},
        "longest side is 0.035 mm",
    ),
    "unit": ({"xyzt_units": 5}, "unit of length is unknown"),
}


@pytest.mark.parametrize("name", DOUBTFUL)
@pytest.mark.parametrize("kind", ["<i2", ">i2"])
def test_what_is_doubtful_is_said_and_read_as_nibabel_reads_it(tmp_path: Path, name: str, kind: str) -> None:
    changes, words = DOUBTFUL[name]
    path = write(tmp_path / "a.nii.gz", changes, kind=kind)
    assert_as_nibabel(path)
    (doubt,) = doubts(path)
    assert doubt.startswith(f"{path}: ")
    assert words in doubt


HARMLESS = {
    "time": {"xyzt_units": 2 + 8}, "no unit": {"xyzt_units": 0}, "qfac 0": {"qfac": 0.0}, "intent": {"intent": 1002},
    "offset": {"vox_offset": 352.0}, "unused qform": {"qform_code": 0, "quatern": (NAN, NAN, NAN)},
    "further sizes": {"dim": (3, *SHAPE, 0, -1, 9, 1)}, "further edges": {"pixdim": (1, 0.7, 0.8, 2.5, NAN, 0, -1, 9)},
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_not_matter_is_not_mentioned(tmp_path: Path, name: str) -> None:
    changes = HARMLESS[name]
    path = write(tmp_path / "a.nii", changes)
    assert_as_nibabel(path)
    assert doubts(path) == []


REFUSED = {
    **{f"pixdim {value}": ({"pixdim1": value}, "its voxel size is") for value in (0.0, -0.7, NAN, INF, 1e-6, 1e5)},
    **{f"offset {value}": ({"vox_offset": value}, "cannot begin at byte") for value in (0.0, 348.0, 352.5, NAN, -1e9)},
    "offset inf": ({"vox_offset": INF}, "cannot begin"),
    "offset beyond the file": ({"vox_offset": 1e6}, "truncated"),
    "metres": ({"xyzt_units": 1}, "in metres"),
    "micrometres": ({"xyzt_units": 3 + 8}, "in micrometres"),
    "sform NaN": ({"srow": (NAN,) * 12}, "orientation is impossible"),
    "sform origin NaN": ({"srow_x": (0.7, 0.0, 0.0, NAN)}, "orientation is impossible"),
    "sform 0": ({"srow": (0.0,) * 12}, "orientation is impossible"),
    "sform flat": ({"srow_x": (0.0, 0.0, 0.0, 1.0)}, "sheared"),
    "qform NaN": ({"quatern": (NAN, 0.0, 0.0)}, "no rotation"),
    "qform too long": ({"quatern": (0.9, 0.9, 0.0)}, "no rotation"),
    "qform origin inf": ({"qoffset": (INF, 0.0, 0.0)}, "no rotation"),
    "qfac": ({"qfac": 0.5}, "neither left- nor right-handed"),
    "mirrored": ({"qfac": -1.0}, "exchange left and right"),
    "turned about the long axis": ({"srow": (-PLACE[:2]).ravel().tolist() + PLACE[2].tolist()}, "exchange left and"),
    "unknown sform code": ({"sform_code": 7}, "unknown kind"),
    "negative qform code": ({"qform_code": -1}, "unknown kind"),
    "slope inf": ({"scl_slope": INF}, "cannot be scaled"),
    "slope without intercept": ({"scl_slope": 2.0, "scl_inter": NAN}, "cannot be scaled"),
    "slope that overflows": ({"scl_slope": 1e38}, "NaN or infinite"),
    "RGB": ({"datatype": 128}, "one real value per voxel (RGB)"),
    "bits": ({"datatype": 1}, "one real value"),
    "no type": ({"datatype": 0}, "unknown number type 0"),
    "a longer type": ({"datatype": 64}, "truncated"),
    "dim 0": ({"dim": (0, *SHAPE, 1, 1, 1, 1)}, "no valid header"),
    "dim 8": ({"dim": (8, *SHAPE, 1, 1, 1, 1)}, "no valid header"),
    "dim -1": ({"dim": (3, 5, -6, 7, 1, 1, 1, 1)}, "no valid header"),
    "hundred gigabytes": ({"dim": (3, 32767, 32767, 50, 1, 1, 1, 1)}, "litres"),
    "more than there is": ({"dim": (3, 5, 6, 700, 1, 1, 1, 1)}, "truncated"),
    "less than there is": ({"dim": (3, 5, 6, 3, 1, 1, 1, 1)}, "more than one volume"),
    "pair": ({"magic": b"ni1\0"}, "pair of files"),
    "no magic": ({"magic": b"\0\0\0\0"}, "not a NIfTI file"),
    "far away": ({"srow_x": (0.7, 0.0, 0.0, 1e9)}, "its first voxel lies at"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("file", ["a.nii", "a.nii.gz"])
def test_what_cannot_be_meant_is_refused(tmp_path: Path, name: str, file: str) -> None:
    changes, words = REFUSED[name]
    if isinstance(changes.get("srow"), list):
        changes = {"srow": tuple(changes["srow"])}
    if name in ("sform flat", "far away"):
        changes = {"qform_code": 0, **changes}
    path = write(tmp_path / file, changes, affine=np.diag([0.7, 0.8, 2.5, 1.0]) if name == "far away" else PLACE)
    problems = image_problems(path)[1]
    assert any(words in problem for problem in problems), problems
    assert all(problem.startswith(f"{path}: ") and "\n" not in problem for problem in problems)
    with pytest.raises(InputError):
        read_labels(path)


def test_several_problems_are_told_together(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", {"datatype": 128, "vox_offset": NAN, "pixdim1": 0.0})
    assert len(image_problems(path)[1]) == 3


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
def test_the_file_that_is_named_is_read_whatever_lies_beside_it(tmp_path: Path, name: str) -> None:
    """NIfTI's C library opens ``a.nii`` where ``a.nii.gz`` is asked for, and the other way round."""
    for other in ("a.nii", "a.nii.gz", "a.hdr", "a.img", "A.nii"):
        if other != name:
            (tmp_path / other).write_bytes(b"other")
    path = tmp_path / name
    good = write(tmp_path / ("b.nii.gz" if name.lower().endswith("gz") else "b.nii"))
    good.rename(path)
    assert np.array_equal(to_array(read_image(path)).T, VOXELS)


def test_a_name_that_is_not_utf8_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "caf\udce9" / "a.nii.gz"
    path.parent.mkdir()
    write(tmp_path / "a.nii.gz").rename(path)
    assert np.array_equal(to_array(read_image(path)).T, VOXELS)


def test_more_bytes_than_described_are_said(tmp_path: Path) -> None:
    for name in ("a.nii", "a.nii.gz"):
        path = write(tmp_path / name, {"dim": (3, 5, 6, 6, 1, 1, 1, 1)})
        assert doubts(path) == [f"{path}: it holds 60 bytes more than its header describes, which are not read"]
        assert np.array_equal(to_array(read_image(path)).T, VOXELS[..., :6])


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    data = gzip.decompress(write(tmp_path / "a.nii.gz").read_bytes())
    bomb = tmp_path / "bomb.nii.gz"
    bomb.write_bytes(gzip.compress(data + bytes(1 << 27)))
    assert "more than one volume" in image_problems(bomb)[1][0]
    huge = write(tmp_path / "huge.nii.gz", {"dim": (3, 30000, 30000, 30000, 1, 1, 1, 1), "pixdim1": 0.7})
    assert image_problems(huge)[0] is None


def test_bytes_behind_the_gzip_stream_are_not_called_truncated(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii.gz")
    whole = path.read_bytes()
    path.write_bytes(whole + b"JUNK" * 20)
    (problem,) = image_problems(path)[1]
    assert "other bytes follow its gzip stream" in problem
    path.write_bytes(whole + bytes(512))
    assert image_problems(path)[1] == []


def test_a_file_that_may_not_be_read_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.nii")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    (problem,) = image_problems(path)[1]
    assert problem == f"{path}: cannot be read (Permission denied); ask for its permissions, or copy it"


def test_equal_doubts_are_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [write(tmp_path / f"{name}.nii", {"qform_code": 0, "sform_code": 0}) for name in "abc"]
    say_doubts([*paths, write(tmp_path / "d.nii"), tmp_path / "missing.nii"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{paths[0]} and 2 more: neither its qform")
