"""Reading scans, with every defect a file can have turned into a sentence about it."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from duomod.errors import InputError

# ITK's own warnings name no file; ours do.
sitk.ProcessObject.SetGlobalWarningDisplay(False)


def is_nifti(path: Path) -> bool:
    """Whether a file's name is that of a NIfTI volume (hidden files are not)."""
    return path.name.endswith((".nii", ".nii.gz")) and not path.name.startswith(".")


def read_image(path: Path) -> sitk.Image:
    """Read a 3D scalar volume.

    Raises:
        InputError: the file is missing, empty, truncated, not gzip although it is named ``.gz``, not NIfTI, not 3D, or
            its direction is not orthonormal. Non-finite voxels are not looked for (see :func:`image_problems`).
    """
    problem = _file_problem(path)
    if problem:
        raise InputError(problem)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        text = str(error)
        if "orthonormal" in text:
            reason = (
                "its orientation matrix is sheared (direction cosines not orthonormal);"
                " correct its header, or resample it with a tool that accepts shears"
            )
        else:
            detail = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "unknown reason")
            reason = f"cannot be read ({detail}); replace it by an intact copy"
        raise InputError(f"{path}: {reason}") from None
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(f"{path}: not a 3D volume with one value per voxel; give one scan per file")
    return image


def image_problems(path: Path) -> tuple[sitk.Image | None, list[str]]:
    """Read a scan and say everything that is wrong with it, for callers that collect problems.

    Returns:
        The image (None if it cannot be read) and the problems, each naming the file.
    """
    try:
        image = read_image(path)
    except InputError as error:
        return None, list(error.problems)
    voxels = sitk.GetArrayViewFromImage(image)
    if np.issubdtype(voxels.dtype, np.floating):
        # A sum is finite only if every voxel is (unless it overflows, which the exact count then settles).
        if not math.isfinite(float(voxels.sum(dtype=np.float64))):
            bad = int(np.count_nonzero(~np.isfinite(voxels)))
            if bad:
                return image, [f"{path}: {bad} voxel(s) are NaN or infinite; repair or remove this scan"]
    return image, []


def to_array(image: sitk.Image) -> NDArray[np.generic]:
    """Return the voxels as (D, H, W) = (z, y, x)."""
    array: NDArray[np.generic] = sitk.GetArrayFromImage(image)
    return array


def _file_problem(path: Path) -> str | None:
    """What is wrong with the file itself, before its voxels are read; None if nothing."""
    if not path.exists():
        return f"{path}: file not found"
    if not path.is_file():
        return f"{path}: not a file"
    if path.stat().st_size == 0:
        return f"{path}: the file is empty; copy or download it again"
    if not is_nifti(path):
        return None
    packed = path.name.endswith(".gz")
    if packed:
        with open(path, "rb") as stream:
            if stream.read(2) != b"\x1f\x8b":
                return f"{path}: not a gzip file although its name ends in .gz; compress it, or rename it to .nii"
    try:
        with gzip.open(path) if packed else open(path, "rb") as stream:
            header = stream.read(544)
    except (OSError, EOFError, zlib.error):
        return f"{path}: truncated or damaged gzip file; copy or download it again"
    layout = _header(header)
    if layout is None:
        return f"{path}: not a NIfTI file (no valid header); export the scan as NIfTI"
    shape, expected = layout
    if len(shape) != 3:
        size = " x ".join(map(str, shape))
        return f"{path}: a {len(shape)}D file ({size}); duomod needs 3D volumes: give one 3D scan per file"
    if not (_gzip_holds(path, expected) if packed else path.stat().st_size >= expected):
        return f"{path}: the file is truncated (it should hold {expected:,} bytes of data); copy or download it again"
    return None


def _header(data: bytes) -> tuple[tuple[int, ...], int] | None:
    """Shape and total number of bytes that a NIfTI-1 or NIfTI-2 header announces; None if it is no header."""
    for order in "<>":
        if len(data) >= 348 and struct.unpack_from(f"{order}i", data)[0] == 348:
            dims: tuple[int, ...] = struct.unpack_from(f"{order}8h", data, 40)
            bits = struct.unpack_from(f"{order}h", data, 72)[0]
            offset = int(struct.unpack_from(f"{order}f", data, 108)[0])
        elif len(data) >= 540 and struct.unpack_from(f"{order}i", data)[0] == 540:
            dims = struct.unpack_from(f"{order}8q", data, 16)
            bits = struct.unpack_from(f"{order}h", data, 14)[0]
            offset = struct.unpack_from(f"{order}q", data, 168)[0]
        else:
            continue
        if 1 <= dims[0] <= 7 and all(d >= 1 for d in dims[1 : dims[0] + 1]):
            shape = dims[1 : dims[0] + 1]
            return shape, offset + math.prod(shape) * bits // 8
    return None


def _gzip_holds(path: Path, expected: int) -> bool:
    """Whether a gzip file decompresses, without error, to at least ``expected`` bytes."""
    with open(path, "rb") as raw:
        raw.seek(-4, 2)
        # The trailer holds the length. It agrees for almost every whole file and no truncated one, which saves
        # decompressing twice.
        if struct.unpack("<I", raw.read(4))[0] == expected % 2**32:
            return True
    total = 0
    try:
        with gzip.open(path) as stream:
            while chunk := stream.read(1 << 22):
                total += len(chunk)
    except (OSError, EOFError, zlib.error):
        return False
    return total >= expected
