"""MetaImage (.mha, .mhd) and NRRD files: a header of text, then raw or packed voxels.

ITK fills in what a header lacks (1 mm, no rotation), follows it to any file, and gives noise for voxels that it cannot
unpack; here all that is refused or said.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from duomod.datasets.case_names import shown
from duomod.datasets.nifti_header import MOST_PACKED, Affine, grid_doubts, grid_problems
from duomod.errors import InputError

#: A header of text that is longer than this is none.
_LONGEST = 1 << 16
_CHUNK = 1 << 22

_META_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
_NRRD_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "signed long long int"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    **dict.fromkeys(("int64", "int64_t"), "i8"),
    "float": "f4",
    "double": "f8",
}
#: NRRD's names of a patient's axes -> signs that lead to LPS.
_SPACES = {
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1), "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
}  # fmt: skip


@dataclass(frozen=True)
class TextHeader:
    """Where a volume of either format lies: sizes in voxels, lengths in mm, as x, y, z in SimpleITK's world (LPS).

    Attributes:
        data: The file that holds the voxels, from byte ``start`` on; ``packed`` by zlib or gzip, or as they are.
        dtype: Of the stored voxels, in the file's byte order.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]
    data: Path
    start: int
    packed: bool
    dtype: np.dtype[np.generic]
    doubts: tuple[str, ...]

    @property
    def data_bytes(self) -> int:
        """Bytes of all voxels, unpacked."""
        return math.prod(self.size) * self.dtype.itemsize


@dataclass
class _Reading:
    """What has been found while a header is read; the defaults are those of a file that does not say it.

    ``axes`` are columns of unit length in the LPS world.
    """

    data: Path
    start: int
    size: tuple[int, ...] = ()
    edges: NDArray[np.float64] = field(default_factory=lambda: np.full(3, np.nan))
    axes: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))
    first: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    kind: str = ""
    big_endian: bool = False
    packed: bool = False
    problems: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def numbers(self, text: str, count: int) -> NDArray[np.float64]:
        """Numbers in a field; NaN, and a problem, where they are not so many."""
        try:
            values = np.array([float(part) for part in text.split()])
        except ValueError:
            values = np.array([])
        if len(values) == count and np.isfinite(values).all():
            return values
        self.problems.append(f"its header is damaged: {count} numbers expected, found '{shown(text[:60])}'")
        return np.full(count, np.nan)

    def affine(self) -> Affine:
        affine = np.eye(4)
        affine[:3, :3] = self.axes * self.edges
        affine[:3, 3] = self.first
        return affine


def read_text_header(path: Path) -> TextHeader:
    """Read the header of a MetaImage or NRRD file, and make sure that its voxels can be there.

    Raises:
        InputError: lists everything in it that cannot be meant or is not read.
        OSError: the file cannot be opened.
    """
    with open(path, "rb") as stream:
        beginning = stream.read(_LONGEST)
    found = _nrrd(path, beginning) if path.name.lower().endswith(".nrrd") else _meta(path, beginning)
    if len(found.size) != 3 or min(found.size) < 1:
        shape = " x ".join(map(str, found.size)) or "no size"
        found.problems.insert(0, f"not a 3D volume ({shape}); give one 3D scan with one real value per voxel per file")
    if not found.problems:
        found.problems += grid_problems(found.affine(), found.size)
    if found.problems:
        raise InputError([f"{path}: {text}" for text in found.problems])
    x, y, z = found.size
    header = TextHeader(
        size=(x, y, z),
        spacing=_triple(found.edges),
        origin=_triple(found.first),
        direction=tuple((found.axes + 0.0).ravel().tolist()),
        data=found.data,
        start=found.start,
        packed=found.packed,
        dtype=np.dtype((">" if found.big_endian else "<") + found.kind),
        doubts=(*found.doubts, *grid_doubts(found.affine(), found.size)),
    )
    stored = found.data.stat().st_size - found.start
    if stored * (MOST_PACKED if found.packed else 1) < header.data_bytes:
        raise InputError(_truncated(path, header))
    if not found.packed and stored >= 2 * header.data_bytes:
        raise InputError(_too_long(path))
    if not found.packed and stored > header.data_bytes:
        more = f"it holds {stored - header.data_bytes:,} bytes more than its header describes, which are not read"
        return replace(header, doubts=(*header.doubts, more))
    return header


def text_values(path: Path, header: TextHeader) -> NDArray[np.generic]:
    """The voxels (D, H, W) of a MetaImage or NRRD file.

    Raises:
        InputError: truncated, damaged, or with more than one volume in it.
    """
    wanted = header.data_bytes
    stored = np.empty(wanted, dtype=np.uint8)
    at = 0
    try:
        with open(header.data, "rb") as stream:
            stream.seek(header.start)
            for chunk in _unpacked(stream) if header.packed else iter(lambda: stream.read(_CHUNK), b""):
                kept = chunk[: wanted - at]
                stored[at : at + len(kept)] = np.frombuffer(kept, dtype=np.uint8)
                at += len(chunk)
                if at >= 2 * wanted:
                    raise InputError(_too_long(path))
    except (zlib.error, EOFError) as error:
        raise InputError(f"{path}: its packed voxels are truncated or damaged ({error}); copy it again") from None
    except OSError as error:
        raise InputError(f"{header.data}: cannot be read ({error.strerror}); copy it again") from None
    if at < wanted:
        raise InputError(_truncated(path, header))
    values: NDArray[np.generic] = stored.view(header.dtype).reshape(header.size[::-1])
    return values.astype(header.dtype.newbyteorder("="), copy=False)


def _truncated(path: Path, header: TextHeader) -> str:
    return (
        f"{path}: the file is truncated (it should hold {header.data_bytes:,} bytes of voxels); copy or download it"
        " again"
    )


def _too_long(path: Path) -> str:
    return f"{path}: holds more than one volume of the size in its header; give one 3D scan per file"


def _unpacked(stream: IO[bytes]) -> Iterator[bytes]:
    """Unpack zlib's or gzip's format to its end, where its checksum is."""
    unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    while not unpack.eof:
        packed = unpack.unconsumed_tail or stream.read(_CHUNK)
        if not packed:
            raise EOFError("no end")
        if chunk := unpack.decompress(packed, _CHUNK):
            yield chunk


def _meta(path: Path, beginning: bytes) -> _Reading:
    match = re.search(rb"^[ \t]*ElementDataFile[ \t]*=[^\n]*\n?", beginning, re.MULTILINE)
    if match is None:
        raise InputError(f"{path}: not a MetaImage file (no valid header); export the scan again")
    found = _Reading(path, match.end())
    lines = beginning[: match.end()].decode("latin-1").splitlines()
    fields = _fields([line.partition("=") for line in lines], found)
    if fields.get("objecttype", "Image").lower() != "image" or "dimsize" not in fields:
        raise InputError(f"{path}: not a MetaImage volume (no valid header); export the scan again")
    found.size = _whole_numbers(fields["dimsize"])
    if fields.get("ndims", "") != str(len(found.size)):
        found.problems.append(f"its header is damaged: {fields.get('ndims', 'no')} dimensions, DimSize {found.size}")
    found.kind = _META_TYPES.get(fields.get("elementtype", ""), "")
    if fields.get("elementnumberofchannels", "1") != "1" or not found.kind:
        found.problems.append(f"not one real value per voxel ({shown(fields.get('elementtype', 'no type')[:40])})")
    orders = {fields[name].lower() for name in ("binarydatabyteordermsb", "elementbyteordermsb") if name in fields}
    found.big_endian = orders == {"true"}
    if found.kind[1:] != "1" and orders not in ({"true"}, {"false"}):
        found.problems.append("its header does not say the order of bytes (BinaryDataByteOrderMSB); export it again")
    for name, wanted in {
        "compresseddata": ("true", "false"),
        "headersize": ("0",),
        "distanceunits": ("mm", "?"),
        "elementtointensityfunctionslope": ("1",),
        "elementtointensityfunctionoffset": ("0",),
    }.items():
        if name in fields and fields[name].lower() not in wanted:
            found.problems.append(f"its header says {name} = {shown(fields[name][:40])}, which is not read; export it")
    found.packed = fields.get("compresseddata", "false").lower() == "true"
    if fields.get("binarydata", "").lower() != "true":
        found.problems.append("its voxels are text, which is not read; export it as .nii.gz")
    _meta_place(fields, found)
    data = fields["elementdatafile"]
    if data.lower() != "local":
        found.data, found.start = path.parent / data, 0
        if data != Path(data).name or data.upper() == "LIST" or "%" in data or not data.isprintable():
            found.problems.append("its voxels are in other files; export it as one .mha or .nii.gz file")
        elif not found.data.is_file():
            found.problems.append(f"its voxels are missing: no file {data} beside it; copy both")
    return found


def _meta_place(fields: Mapping[str, str], found: _Reading) -> None:
    """Voxel size, orientation and origin of a MetaImage."""
    spacing = fields.get("elementspacing", fields.get("elementsize"))
    if spacing is None:
        found.problems.append("its header says no voxel size (ElementSpacing); export the scan again")
        return
    edges = found.numbers(spacing, 3)
    turned = next((fields[name] for name in ("transformmatrix", "rotation", "orientation") if name in fields), None)
    first = next((fields[name] for name in ("offset", "origin", "position") if name in fields), None)
    if turned is None or first is None:
        found.doubts.append("its header says no orientation or no origin; taken for x to the left, y to the back")
    # MetaImage lists the axes one after another: each is a column of the matrix.
    axes = np.eye(3) if turned is None else found.numbers(turned, 9).reshape(3, 3).T
    if np.abs(np.sqrt((axes**2).sum(axis=0)) - 1).max() > 1e-3:
        found.problems.append("its orientation is no rotation (TransformMatrix); export the scan again")
    found.edges, found.axes = edges, axes
    if first is not None:
        found.first = found.numbers(first, 3)
    _check_signs(found)


def _nrrd(path: Path, beginning: bytes) -> _Reading:
    end = re.search(rb"\r?\n\r?\n", beginning)
    if end is None or not re.match(rb"NRRD000[1-5]\r?\n", beginning):
        raise InputError(f"{path}: not a NRRD file with its voxels (no valid header); export the scan again")
    found = _Reading(path, end.end())
    lines = beginning[: end.start()].decode("latin-1").splitlines()[1:]
    fields = _fields([line.partition(":") for line in lines if not line.startswith("#") and ":=" not in line], found)
    found.size = _whole_numbers(fields.get("sizes", ""))
    if fields.get("dimension") != str(len(found.size)):
        found.problems.append(f"its header is damaged: dimension {fields.get('dimension')}, sizes {found.size}")
    name = " ".join(fields.get("type", "none").lower().split())
    found.kind = _NRRD_TYPES.get(name, "")
    if not found.kind:
        found.problems.append(f"not one real value per voxel (type {shown(name[:40])})")
    order = fields.get("endian", "").lower()
    found.big_endian = order == "big"
    if found.kind[1:] != "1" and order not in ("big", "little"):
        found.problems.append("its header does not say the order of bytes (endian); export the scan again")
    encoding = fields.get("encoding", "none").lower()
    found.packed = encoding in ("gzip", "gz")
    if encoding not in ("raw", "gzip", "gz"):
        found.problems.append(f"its encoding '{shown(encoding[:40])}' is not read; export it as .nii.gz")
    for name in ("datafile", "lineskip", "byteskip"):
        if fields.get(name, "0") != "0":
            found.problems.append("its voxels are in another file, or not behind the header; export it as .nii.gz")
    if set(re.findall(r'"(.*?)"', fields.get("spaceunits", ""))) - {"mm", "", "???"}:
        found.problems.append(f"its lengths are not in mm (space units {shown(fields['spaceunits'][:40])}); export it")
    _nrrd_place(fields, found)
    return found


def _nrrd_place(fields: Mapping[str, str], found: _Reading) -> None:
    """Voxel size, orientation and origin of a NRRD."""
    space = fields.get("space", "").lower()
    signs = np.array(_SPACES.get(space, (1, 1, 1)), dtype=float)
    if "spacedirections" in fields:
        vectors = found.numbers(re.sub(r"[(),]", " ", fields["spacedirections"]), 9).reshape(3, 3).T
        found.edges = np.sqrt((vectors**2).sum(axis=0))
        if (found.edges > 0).all():
            found.axes = signs[:, None] * vectors / found.edges
    elif "spacings" in fields:
        found.edges, found.axes = found.numbers(fields["spacings"], 3), np.diag(signs)
    else:
        found.problems.append("its header says no voxel size (space directions); export the scan again")
        return
    if space not in _SPACES or "spacedirections" not in fields or "spaceorigin" not in fields:
        found.doubts.append(
            "its header does not say fully where it lies (space, space directions, space origin); what is missing is"
            " taken for x to the left, y to the back, z to the top"
        )
    if "spaceorigin" in fields:
        found.first = signs * found.numbers(re.sub(r"[(),]", " ", fields["spaceorigin"]), 3)
    _check_signs(found)


def _check_signs(found: _Reading) -> None:
    if (found.edges <= 0).any():
        found.problems.append(f"its voxel size is {found.edges.tolist()} mm; export the scan again")


def _whole_numbers(text: str) -> tuple[int, ...]:
    parts = text.split()
    return tuple(map(int, parts)) if all(re.fullmatch(r"[0-9]{1,9}", part) for part in parts) else ()


def _fields(parts: Sequence[tuple[str, str, str]], found: _Reading) -> dict[str, str]:
    """Fields by name in small letters without spaces; one that occurs twice is a problem."""
    pairs = [(re.sub(r"\s", "", name).lower(), value.strip()) for name, between, value in parts if between]
    fields = dict(pairs)
    if len(fields) < len(pairs):
        found.problems.append("a field of its header is there twice; export the scan again")
    return fields


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (values + 0.0).tolist()
    return x, y, z
