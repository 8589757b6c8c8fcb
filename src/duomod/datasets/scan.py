"""Reading scans and label maps, with every defect a file can have turned into a sentence about it.

NIfTI files are read here and not by ITK, which reads another file where ``a.nii`` lies beside ``a.nii.gz``, places a
grid by ``pixdim`` whatever the sform says, takes impossible voxel sizes for 1 mm, reads a truncated ``.nii.gz`` without
complaint, turns NaN voxels into zeros, and is no better with MetaImage and NRRD files.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from duomod.console import say
from duomod.datasets.case_names import is_nifti, shown
from duomod.datasets.nifti_header import HEADER_BYTES, MOST_PACKED, NiftiHeader, parse_nifti
from duomod.datasets.text_header import TextHeader, read_text_header, text_values
from duomod.errors import InputError

# ITK's own warnings name no file; ours do.
sitk.ProcessObject.SetGlobalWarningDisplay(False)

_DAMAGED_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)
_CHUNK = 1 << 22

_Values = NDArray[np.generic]


Header = NiftiHeader | TextHeader


def read_image(path: Path) -> sitk.Image:
    """Read a 3D scalar volume.

    Raises:
        InputError: the file is missing, empty, truncated, damaged or of another kind, not 3D, its voxel size or
            orientation is impossible or contradicts itself, or a voxel is NaN or infinite.
    """
    image, problems = image_problems(path)
    if image is None or problems:
        raise InputError(problems)
    return image


def image_problems(path: Path) -> tuple[sitk.Image | None, list[str]]:
    """Read a scan and say everything that is wrong with it, for callers that collect problems.

    Returns:
        The image (None if it cannot be read) and the problems, each naming the file.
    """
    try:
        header = read_header(path)
        values = _nifti_values(path, header) if isinstance(header, NiftiHeader) else text_values(path, header)
    except InputError as error:
        return None, list(error.problems)
    except MemoryError:
        return None, [f"{path}: too large for this machine's memory ({header.data_bytes:,} bytes of voxels)"]
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(header.spacing)
    image.SetOrigin(header.origin)
    image.SetDirection(header.direction)
    # Slice by slice: a temporary array of a whole CT would take as much memory as the scan.
    bad = sum(int(np.count_nonzero(~np.isfinite(plane))) for plane in values) if values.dtype.kind == "f" else 0
    if bad:
        return image, [f"{path}: {bad} voxel(s) are NaN or infinite; repair or remove this scan"]
    return image, []


def read_header(path: Path) -> Header:
    """Read only where a 3D volume lies and what kind it is of; the voxels are not looked at.

    Raises:
        InputError: as :func:`read_image`, for what can be seen without reading the voxels.
    """
    problem = _file_problem(path)
    if problem:
        raise InputError(problem)
    try:
        header = _nifti_header(path) if is_nifti(path) else read_text_header(path)
    except _DAMAGED_GZIP:
        raise InputError(f"{path}: truncated or damaged gzip file; copy or download it again") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); ask for its permissions, or copy it") from None
    if header.data_bytes > _memory_bytes():
        raise InputError(f"{path}: too large for this machine's memory ({header.data_bytes:,} bytes of voxels)")
    return header


def doubts(path: Path) -> list[str]:
    """Say what is doubtful about a file that can be read: what its header leaves open, and programs read differently.

    A file that cannot be used has no doubts: reading it says what is wrong.

    Returns:
        Sentences; each names the file.
    """
    try:
        header = read_header(path)
        found = list(header.doubts)
        more = _surplus(path, header) if isinstance(header, NiftiHeader) else 0
    except (InputError, OSError, *_DAMAGED_GZIP):
        return []
    if more:
        found.append(f"it holds {more:,} bytes more than its header describes, which are not read")
    return [f"{path}: {text}" for text in found]


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


def open_nifti(path: Path) -> IO[bytes]:
    """Open a NIfTI file, packed or not, for reading its bytes."""
    # Not gzip.open: its result is of another type, and a plain file would need a branch at every call.
    return gzip.GzipFile(path, "rb") if _packed(path) else open(path, "rb")  # type: ignore[return-value]


def _packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _file_problem(path: Path) -> str | None:
    """What is wrong with the file itself, before its header is read; None if nothing."""
    try:
        if not path.exists():
            return f"{shown(path)}: file not found"
        if not path.is_file():
            return f"{shown(path)}: not a file"
        if path.stat().st_size == 0:
            return f"{path}: the file is empty; copy or download it again"
        with open(path, "rb") as stream:
            magic = stream.read(2)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name is impossible"
        return f"{shown(path)}: cannot be read ({reason}); ask for its permissions, or copy it"
    if is_nifti(path) and _packed(path) and magic != b"\x1f\x8b":
        return f"{path}: not a gzip file although its name ends in .gz; compress it, or rename it to .nii"
    if is_nifti(path) and not _packed(path) and magic == b"\x1f\x8b":
        return f"{path}: a gzip file although its name ends in .nii; rename it to .nii.gz"
    return None


def _nifti_header(path: Path) -> NiftiHeader:
    """Read a NIfTI file's header, and make sure that the file can hold what it announces."""
    with open_nifti(path) as stream:
        header = parse_nifti(stream.read(HEADER_BYTES), str(path))
    most = path.stat().st_size * (MOST_PACKED if _packed(path) else 1)
    if header.end > most:
        raise InputError(_truncated(path, header))
    return header


def _truncated(path: Path, header: NiftiHeader) -> str:
    return f"{path}: the file is truncated (it should hold {header.end:,} bytes of data); copy or download it again"


def _memory_bytes() -> int:
    """This machine's memory; where the system does not say, as much as an address can reach."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 1 << 48


def _nifti_values(path: Path, header: NiftiHeader) -> _Values:
    """The voxels (D, H, W) of a NIfTI file, scaled; a gzip file is read to its end, where its checksum is.

    Raises:
        InputError: truncated, damaged, or with far more in it than its header describes.
    """
    stored = np.empty(header.data_bytes, dtype=np.uint8)
    at = 0
    try:
        with open_nifti(path) as stream:
            stream.seek(header.offset)
            while chunk := stream.read(min(_CHUNK, header.data_bytes - at)):
                stored[at : at + len(chunk)] = np.frombuffer(chunk, dtype=np.uint8)
                at += len(chunk)
            if at < header.data_bytes:
                raise InputError(_truncated(path, header))
            more = _rest(stream, header.data_bytes)
    except _DAMAGED_GZIP as error:
        raise InputError(_gzip_problem(path, header, at, error)) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); copy it again") from None
    if more >= header.data_bytes:
        raise InputError(
            f"{path}: holds more than one volume of the size in its header"
            f" ({' x '.join(map(str, header.size))}); give one 3D scan per file, with a header that fits"
        )
    values: _Values = stored.view(header.dtype).reshape(header.size[::-1])
    values = values.astype(header.dtype.newbyteorder("="), copy=False)
    if header.scaling is None:
        return values
    slope, inter = header.scaling
    scaled: _Values = np.empty(values.shape, dtype=np.float64 if values.dtype == np.float64 else np.float32)
    # Slice by slice: in float64 a whole CT would take four times the memory of the scan.
    with np.errstate(over="ignore", invalid="ignore"):
        for plane, result in zip(values, scaled, strict=True):
            result[...] = plane.astype(np.float64) * slope + inter
    return scaled


def _gzip_problem(path: Path, header: NiftiHeader, at: int, error: Exception) -> str:
    if isinstance(error, EOFError):
        return _truncated(path, header)
    if at < header.data_bytes:
        return f"{path}: truncated or damaged gzip file; copy or download it again"
    if "Not a gzipped file" in str(error):
        return f"{path}: other bytes follow its gzip stream; unpack it and pack it again, or copy it again"
    return f"{path}: damaged gzip file ({error}); copy or download it again"


def _rest(stream: IO[bytes], most: int) -> int:
    """Read on to the end of a stream, but not much farther than ``most`` bytes; return how many there were."""
    found = 0
    while found < most and (chunk := stream.read(_CHUNK)):
        found += len(chunk)
    return found


def _surplus(path: Path, header: NiftiHeader) -> int:
    """Bytes behind the voxels; of a gzip file at most about as many as the voxels have."""
    if not _packed(path):
        return path.stat().st_size - header.end
    with open(path, "rb") as raw:
        raw.seek(-4, 2)
        # The trailer holds the length, which agrees for almost every file: that saves unpacking it.
        if struct.unpack("<I", raw.read(4))[0] == header.end % 2**32:
            return 0
    with open_nifti(path) as stream:
        stream.seek(header.end)
        return _rest(stream, header.data_bytes)
