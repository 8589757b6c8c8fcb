"""The array files of a preprocessed data set: opened only if they are what the data set's index says of them."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duomod.errors import InputError

#: At most so many voxels per class are stored for drawing crops.
MOST_COORDS = 10_000

#: What a coordinate's file may take: three whole numbers of 64 bits a voxel, and a header.
_MOST_COORDS_BYTES = MOST_COORDS * 3 * 8 + 4096

#: Bytes of a file that are read at once.
_CHUNK = 1 << 22

#: What to do about a file that is not what was written.
_MEND = "delete it and run duomod preprocess again"


def mapped(path: Path, shapes: Sequence[tuple[int, ...]], dtype: str) -> NDArray[Any]:
    """Map an array file into memory, to be read.

    Args:
        path: ``.npy`` file.
        shapes: The shapes that it may have, voxels.
        dtype: The type that it must have, e.g. ``int16``.

    Raises:
        InputError: missing, damaged, of another shape or type, cut off, or longer than its array.
        OSError: it may not be read.
    """
    with _explained(path):
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
        size = path.stat().st_size
    if array.shape not in shapes:
        raise InputError(f"{path}: array of shape {array.shape}, expected {shapes[0]}; {_MEND}")
    if array.dtype != np.dtype(dtype):
        raise InputError(f"{path}: array of {array.dtype}, expected {dtype}; {_MEND}")
    assert isinstance(array, np.memmap)
    if size != array.offset + array.nbytes:
        raise InputError(f"{path}: {size:,} bytes, expected {array.offset + array.nbytes:,}; {_MEND}")
    return array


def coordinates(path: Path, keys: Collection[int], shape: tuple[int, int, int]) -> dict[int, NDArray[np.int32]]:
    """Read voxels (N, 3) in z, y, x by class.

    Args:
        path: ``.npz`` file.
        keys: The classes that it must have.
        shape: Of the array in which they lie.

    Raises:
        InputError: missing, damaged, with other classes, or with voxels outside the array.
        OSError: it may not be read.
    """
    with _explained(path), np.load(path, allow_pickle=False) as stored:
        entries = stored.zip.infolist()
        names = sorted(entry.filename for entry in entries)
        if names != sorted(f"{key}.npy" for key in keys):
            found = ", ".join(name.removesuffix(".npy") for name in names[:10])
            wanted = ", ".join(map(str, sorted(keys)))
            raise InputError(f"{path}: coordinates of the classes {found}, expected {wanted}; {_MEND}")
        # Before anything is unpacked: a small file can stand for gigabytes.
        if any(entry.file_size > _MOST_COORDS_BYTES for entry in entries):
            raise InputError(f"{path}: more than {MOST_COORDS:,} coordinates of a class; {_MEND}")
        voxels = {key: stored[f"{key}"] for key in keys}
    for key, found_voxels in voxels.items():
        whole = found_voxels.ndim == 2 and found_voxels.shape[1:] == (3,) and found_voxels.dtype.kind in "iu"
        if not (whole and len(found_voxels)):
            raise InputError(f"{path}: the coordinates of class {key} are no list of voxels; {_MEND}")
        if (found_voxels < 0).any() or (found_voxels >= np.asarray(shape)).any():
            raise InputError(f"{path}: coordinates of class {key} lie outside the array of shape {shape}; {_MEND}")
    return {key: found_voxels.astype(np.int32) for key, found_voxels in voxels.items()}


def checksum(path: Path) -> str:
    """The CRC-32 of a file as eight hexadecimal digits: tells a flipped bit, not an attacker.

    Raises:
        InputError: missing.
        OSError: it may not be read.
    """
    value = 0
    with _explained(path), open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return f"{value:08x}"


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn the ways in which reading an array file fails into a sentence."""
    try:
        yield
    except (InputError, PermissionError):
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: file not found; run duomod preprocess again") from None
    except Exception as error:  # numpy and zipfile fail in a dozen ways over bytes that are not theirs
        # Too little memory is no damage; numpy says then how much it wanted. Python's parser says it without a word, of
        # a header with too many brackets.
        short = isinstance(error, MemoryError) and error.args
        if short or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise InputError(f"{path}: damaged; {_MEND}") from error
