"""Reading scans, with every defect a file can have turned into a sentence about it.

ITK alone is not enough: it reads a truncated ``.nii.gz`` without complaint and turns NaN voxels into zeros.
"""

from __future__ import annotations

import gzip
import itertools
import math
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
import SimpleITK as sitk
from nibabel import Nifti1Header, Nifti2Header
from numpy.typing import NDArray

from duomod.console import say
from duomod.datasets.case_names import is_nifti
from duomod.datasets.nifti_header import HEADER_BYTES, parse_nifti
from duomod.errors import InputError

# ITK's own warnings name no file; ours do.
sitk.ProcessObject.SetGlobalWarningDisplay(False)

_DAMAGED_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)
_FLOAT_TYPES = (16, 64)  # NIfTI datatype codes
_CHUNK = 1 << 22


def read_image(path: Path) -> sitk.Image:
    """Read a 3D scalar volume.

    Raises:
        InputError: the file is missing, empty, truncated, not gzip although it is named ``.gz``, not NIfTI, not 3D, or
            its direction is not orthonormal. Voxels are not looked at (see :func:`image_problems`).
    """
    problem = _file_problem(path)
    if problem:
        raise InputError(problem)
    image = _itk(path, sitk.ReadImage)
    if (
        image.GetDimension() != 3
        or image.GetNumberOfComponentsPerPixel() != 1
        or "complex" in image.GetPixelIDTypeAsString()
    ):
        raise InputError(f"{path}: not a 3D volume with one real value per voxel; give one such scan per file")
    return image


def read_header(path: Path) -> sitk.ImageFileReader:
    """Read only where a 3D volume lies: the result has ``GetSize()``, ``GetSpacing()`` and so on like an image.

    Raises:
        InputError: as :func:`read_image`, for what can be seen without reading the voxels.
    """
    problem = _file_problem(path)
    if problem:
        raise InputError(problem)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    _itk(path, lambda _: reader.ReadImageInformation())
    if reader.GetDimension() != 3:
        raise InputError(f"{path}: not a 3D volume; give one scan per file")
    return reader


def image_problems(path: Path) -> tuple[sitk.Image | None, list[str]]:
    """Read a scan and say everything that is wrong with it, for callers that collect problems.

    Beyond what :func:`read_image` checks, the file's checksum is verified and NaN and infinite voxels are found.

    Returns:
        The image (None if it cannot be read) and the problems, each naming the file.
    """
    try:
        image = read_image(path)
    except InputError as error:
        return None, list(error.problems)
    try:
        bad = _bad_voxels_in_file(path) if is_nifti(path) else _bad_voxels(sitk.GetArrayViewFromImage(image))
    except _DAMAGED_GZIP as error:
        return None, [f"{path}: damaged gzip file ({error}); copy or download it again"]
    if bad:
        return image, [f"{path}: {bad} voxel(s) are NaN or infinite; repair or remove this scan"]
    return image, []


def doubts(path: Path) -> list[str]:
    """Say what is doubtful about a file that can be read: what its header leaves open, and programs read differently.

    Only the header is read. One that cannot be used has no doubts: reading the file says what is wrong.

    Returns:
        Sentences; each names the file.
    """
    if not is_nifti(path) or not path.is_file():
        return []
    try:
        with open_nifti(path) as stream:
            header = parse_nifti(stream.read(HEADER_BYTES), str(path))
    except (InputError, OSError, *_DAMAGED_GZIP):
        return []
    return [f"{path}: {text}" for text in header.doubts]


def say_doubts(paths: Iterable[Path]) -> None:
    """Say the doubts about many files, each sentence once: the first file is named and the others are counted."""
    by_text: dict[str, list[Path]] = {}
    for path in paths:
        for sentence in doubts(path):
            by_text.setdefault(sentence.removeprefix(f"{path}: "), []).append(path)
    for text, found in by_text.items():
        say(f"{found[0]}{f' and {len(found) - 1} more' if len(found) > 1 else ''}: {text}")


def to_array(image: sitk.Image) -> NDArray[np.generic]:
    """Return the voxels as (D, H, W) = (z, y, x)."""
    array: NDArray[np.generic] = sitk.GetArrayFromImage(image)
    return array


def _itk(path: Path, read: Callable[[str], Any]) -> Any:
    """Call an ITK reader; its error becomes one sentence."""
    try:
        return read(str(path))
    except RuntimeError as error:
        text = str(error)
        if "orthonormal" in text:
            reason = (
                "its orientation matrix is sheared (direction cosines not orthonormal);"
                " correct its header, or resample it with a tool that accepts shears"
            )
        elif "Unable to determine ImageIO reader" in text:
            reason = (
                "damaged, or not a kind of file that can be read; copy or download it again, or export it as .nii.gz"
            )
        else:
            detail = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "unknown reason")
            reason = f"cannot be read ({detail}); replace it by an intact copy"
        raise InputError(f"{path}: {reason}") from None


def open_nifti(path: Path) -> IO[bytes]:
    """Open a NIfTI file, packed or not, for reading its bytes."""
    # Not gzip.open: its result is of another type, and a plain file would need a branch at every call.
    return gzip.GzipFile(path, "rb") if path.name.endswith(".gz") else open(path, "rb")  # type: ignore[return-value]


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
    with open(path, "rb") as stream:
        magic = stream.read(2)
    if packed and magic != b"\x1f\x8b":
        return f"{path}: not a gzip file although its name ends in .gz; compress it, or rename it to .nii"
    if not packed and magic == b"\x1f\x8b":
        return f"{path}: a gzip file although its name ends in .nii; rename it to .nii.gz"
    try:
        header = _header(path)
    except _DAMAGED_GZIP:
        return f"{path}: truncated or damaged gzip file; copy or download it again"
    if header is None:
        return f"{path}: not a NIfTI file (no valid header); export the scan as NIfTI"
    if isinstance(header, Nifti2Header):
        return f"{path}: a NIfTI-2 file, which cannot be read here; save it as NIfTI-1 (the usual .nii.gz)"
    shape, end = _shape(header), _end(header)
    if len(shape) != 3:
        size = " x ".join(map(str, shape))
        return f"{path}: a {len(shape)}D file ({size}); duomod needs 3D volumes: give one 3D scan per file"
    if not (_gzip_holds(path, end) if packed else path.stat().st_size >= end):
        return f"{path}: the file is truncated (it should hold {end:,} bytes of data); copy or download it again"
    return None


def _header(path: Path) -> Nifti1Header | None:
    """Read a NIfTI header (a NIfTI-2 one is a kind of it); None if the file has none."""
    with open_nifti(path) as stream:
        data = stream.read(Nifti2Header.sizeof_hdr)
    for kind, order in itertools.product((Nifti1Header, Nifti2Header), "<>"):
        if len(data) < kind.sizeof_hdr:
            continue
        header: Nifti1Header = kind(data[: kind.sizeof_hdr], order, check=False)
        if header["sizeof_hdr"] != kind.sizeof_hdr:
            continue
        axes = int(header["dim"][0])
        if 1 <= axes <= 7 and (header["dim"][1 : axes + 1] >= 1).all():
            return header
    return None


def _shape(header: Nifti1Header) -> tuple[int, ...]:
    return tuple(header["dim"][1 : header["dim"][0] + 1].tolist())


def _end(header: Nifti1Header) -> int:
    """Where the voxels end in the (unpacked) file."""
    return int(header["vox_offset"]) + math.prod(_shape(header)) * int(header["bitpix"]) // 8


def _gzip_holds(path: Path, expected: int) -> bool:
    """Whether a gzip file decompresses, without error, to at least ``expected`` bytes."""
    with open(path, "rb") as raw:
        raw.seek(-4, 2)
        # The trailer holds the length. It agrees for almost every whole file and hardly any truncated one, which saves
        # decompressing twice.
        if struct.unpack("<I", raw.read(4))[0] == expected % 2**32:
            return True
    total = 0
    try:
        with open_nifti(path) as stream:
            while chunk := stream.read(_CHUNK):
                total += len(chunk)
    except _DAMAGED_GZIP:
        return False
    return total >= expected


def _bad_voxels(values: NDArray[np.generic]) -> int:
    """Number of NaN and infinite values."""
    return int(np.count_nonzero(~np.isfinite(values))) if values.dtype.kind == "f" else 0


def _bad_voxels_in_file(path: Path) -> int:
    """Number of NaN and infinite voxels as stored. A gzip file is read to its end, where its checksum is.

    Raises:
        BadGzipFile, EOFError, zlib.error: damaged.
    """
    header = _header(path)
    assert header is not None
    kind = header.get_data_dtype() if int(header["datatype"]) in _FLOAT_TYPES else None
    if kind is None and not path.name.endswith(".gz"):
        return 0
    offset = int(header["vox_offset"])
    bad = 0
    with open_nifti(path) as stream:
        stream.read(offset)
        left = _end(header) - offset
        while chunk := stream.read(_CHUNK):
            if kind is not None and left > 0:
                # A short last piece ends where the voxels end; a read may stop within a voxel only there.
                bad += _bad_voxels(np.frombuffer(chunk[:left], dtype=kind))
            left -= len(chunk)
    return bad
