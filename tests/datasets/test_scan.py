"""Every defect a file can have becomes one sentence that names it."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from duomod.datasets.scan import image_problems, read_header, read_image, to_array
from duomod.errors import InputError

RNG = np.random.default_rng(0)
# Noise in float32 compresses badly, so that half of the file is about half of the voxels.
VOXELS = RNG.normal(size=(30, 31, 32)).astype(np.float32)


def save(path: Path, voxels: np.ndarray = VOXELS, affine: np.ndarray | None = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return path


def cut(path: Path, keep: Callable[[int], int]) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: keep(len(data))])
    return path


def broken(path: Path) -> dict[str, Path]:
    """One file of each kind that must be refused, by a word of the expected message."""
    plain = gzip.decompress(save(path / "good.nii.gz").read_bytes())
    files = {
        "not found": path / "missing.nii.gz",
        "empty": path / "empty.nii.gz",
        "not a gzip file": path / "plain.nii.gz",
        "a gzip file although": path / "packed.nii",
        "not a NIfTI file": path / "text.nii.gz",
        "4D": save(path / "four.nii.gz", VOXELS[..., None].repeat(2, -1)),
        "4D file (30 x 31 x 32 x 1)": save(path / "singleton.nii.gz", VOXELS[..., None]),
        "2D": save(path / "two.nii.gz", VOXELS[0]),
        "one real value": save(path / "complex.nii.gz", VOXELS.astype(np.complex64)),
        "NIfTI-2": path / "second.nii.gz",
        "not a file": path / "folder.nii.gz",
        "orthonormal": path / "sheared.nii.gz",
    }
    files["empty"].touch()
    files["not a gzip file"].write_bytes(plain)
    files["a gzip file although"].write_bytes(gzip.compress(plain))
    files["not a NIfTI file"].write_bytes(gzip.compress(b"hello" * 500))
    nibabel.save(nibabel.Nifti2Image(VOXELS, np.eye(4)), files["NIfTI-2"])
    files["not a file"].mkdir()
    sheared = nibabel.Nifti1Image(VOXELS, np.eye(4))
    sheared.set_sform(np.array([[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), 1)
    sheared.header["qform_code"] = 0
    nibabel.save(sheared, files["orthonormal"])
    return files


def test_each_defect_is_named_with_its_file(tmp_path: Path) -> None:
    for word, path in broken(tmp_path).items():
        image, problems = image_problems(path)
        assert image is None
        assert len(problems) == 1
        assert problems[0].startswith(f"{path}: ")
        assert word in problems[0]
        assert "\n" not in problems[0]


def test_read_image_raises_what_image_problems_returns(tmp_path: Path) -> None:
    for path in broken(tmp_path).values():
        with pytest.raises(InputError) as caught:
            read_image(path)
        assert list(caught.value.problems) == image_problems(path)[1]


@pytest.mark.parametrize(
    "keep", [lambda n: 1, lambda n: 2, lambda n: 15, lambda n: 300, lambda n: n // 2, lambda n: n - 1]
)
def test_a_truncated_gzip_is_never_read(tmp_path: Path, keep: Callable[[int], int]) -> None:
    path = cut(save(tmp_path / "a.nii.gz"), keep)
    assert image_problems(path)[0] is None
    with pytest.raises(InputError, match=r"a\.nii\.gz"):
        read_image(path)


def test_a_truncated_plain_file_is_never_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="truncated"):
        read_image(cut(save(tmp_path / "a.nii"), lambda n: n - 1))


def test_a_flipped_byte_is_found_by_the_checksum(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    image, problems = image_problems(path)
    assert image is None
    assert "damaged" in problems[0]


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_found_although_itk_hides_them(
    tmp_path: Path, name: str, kind: type, value: float
) -> None:
    voxels = VOXELS.astype(kind)
    voxels[-1, -1, -1] = voxels[0, 0, 0] = value
    path = save(tmp_path / name, voxels)
    image, problems = image_problems(path)
    assert image is not None
    assert problems == [f"{path}: 2 voxel(s) are NaN or infinite; repair or remove this scan"]


def test_nan_is_found_in_other_formats_too(tmp_path: Path) -> None:
    voxels = VOXELS.copy()
    voxels[3, 4, 5] = np.nan
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / "a.mha"))
    assert "1 voxel(s)" in image_problems(tmp_path / "a.mha")[1][0]


@pytest.mark.parametrize("kind", ["u1", "i2", ">i2", "u2", "i4", "f4", ">f4", "f8"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_good_files_of_all_kinds_are_read(tmp_path: Path, kind: str, name: str) -> None:
    voxels = np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(kind)
    header = nibabel.Nifti1Header(endianness=">" if kind.startswith(">") else "<")
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4), header), tmp_path / name)
    image, problems = image_problems(tmp_path / name)
    assert problems == []
    assert image is not None
    assert np.array_equal(to_array(image), voxels.T)


def test_a_gzip_file_of_several_members_is_whole(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz")
    data = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(data[:5000]) + gzip.compress(data[5000:]))
    image, problems = image_problems(path)
    assert problems == []
    assert image is not None
    assert np.array_equal(to_array(image), VOXELS.T)


def test_the_header_alone_says_where_the_scan_lies(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", affine=np.diag([-2.0, 3.0, 4.0, 1.0]))
    image, header = read_image(path), read_header(path)
    assert header.size == image.GetSize()
    assert header.spacing == image.GetSpacing()
    assert header.origin == image.GetOrigin()
    assert header.direction == image.GetDirection()


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for path in broken(tmp_path).values():
        image_problems(path)
    image_problems(cut(tmp_path / "good.nii.gz", lambda n: n // 2))
    assert capfd.readouterr() == ("", "")
