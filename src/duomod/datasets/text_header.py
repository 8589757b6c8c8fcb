"""Headers of MetaImage (.mha, .mhd) and NRRD files: text that is checked before ITK reads the voxels.

ITK fills in what a header lacks (1 mm, no rotation) and follows it to any file; here it is refused or said.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from duomod.datasets.case_names import shown
from duomod.datasets.nifti_header import MOST_PACKED, Affine, grid_problems
from duomod.errors import InputError

#: A header of text that is longer than this is none.
_LONGEST = 1 << 16
_CHUNK = 1 << 22

_META_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_LONG": 4,
    "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4, "MET_DOUBLE": 8,
}  # fmt: skip
#: NRRD has many names for a type: these words go, and what is left has a size.
_NRRD_NOISE = re.compile(r"\b(signed|unsigned|int(?=\s*$))\b|_t\b|\s+")
_NRRD_BYTES = {
    "char": 1, "uchar": 1, "int8": 1, "uint8": 1, "short": 2, "ushort": 2, "int16": 2, "uint16": 2, "": 4, "int": 4,
    "uint": 4, "int32": 4, "uint32": 4, "float": 4, "longlong": 8, "ulonglong": 8, "int64": 8, "uint64": 8, "double": 8,
}  # fmt: skip
#: NRRD's names of a patient's axes -> signs that lead to LPS.
_SPACES = {
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1), "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
}  # fmt: skip


@dataclass(frozen=True)
class TextHeader:
    """Where a volume of either format lies: sizes in voxels, lengths in mm, as x, y, z in SimpleITK's world (LPS)."""

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]
    data_bytes: int
    doubts: tuple[str, ...]


@dataclass
class _Reading:
    """What has been found while a header is read; the defaults are those of a file that does not say it.

    ``affine`` leads from voxel index to the LPS world; ``item`` is a voxel's bytes, ``data`` the file they are in.
    """

    path: Path
    data: Path
    start: int
    size: tuple[int, ...] = ()
    affine: Affine = field(default_factory=lambda: np.eye(4))
    item: int = 0
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

    def whole_numbers(self, text: str) -> tuple[int, ...]:
        parts = text.split()
        return tuple(map(int, parts)) if all(re.fullmatch(r"[0-9]{1,9}", part) for part in parts) else ()


def read_text_header(path: Path) -> TextHeader:
    """Read the header of a MetaImage or NRRD file, and make sure that its voxels are there.

    Raises:
        InputError: lists everything in it that cannot be meant or is not read.
        OSError: the file cannot be opened.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(f"{shown(path)}: its path is not UTF-8, and ITK cannot open it; rename it") from None
    with open(path, "rb") as stream:
        beginning = stream.read(_LONGEST)
    found = _nrrd(path, beginning) if path.name.lower().endswith(".nrrd") else _meta(path, beginning)
    shape = " x ".join(map(str, found.size)) or "no size"
    if len(found.size) != 3 or min(found.size) < 1:
        found.problems.insert(0, f"not a 3D volume ({shape}); give one 3D scan with one real value per voxel per file")
    if not found.problems:
        found.problems += grid_problems(found.affine, found.size)
    wanted = found.item * math.prod(found.size)
    if not found.problems:
        _check_length(found, wanted)
    if found.problems:
        raise InputError([f"{path}: {text}" for text in found.problems])
    edges = np.sqrt((found.affine[:3, :3] ** 2).sum(axis=0))
    x, y, z = found.size
    return TextHeader(
        size=(x, y, z),
        spacing=_triple(edges),
        origin=_triple(found.affine[:3, 3]),
        direction=tuple((found.affine[:3, :3] / edges + 0.0).ravel().tolist()),
        data_bytes=wanted,
        doubts=tuple(found.doubts),
    )


def _meta(path: Path, beginning: bytes) -> _Reading:
    match = re.search(rb"^[ \t]*ElementDataFile[ \t]*=[^\n]*\n?", beginning, re.MULTILINE)
    if match is None:
        raise InputError(f"{path}: not a MetaImage file (no valid header); export the scan again")
    found = _Reading(path, path, match.end())
    lines = beginning[: match.end()].decode("latin-1").splitlines()
    fields = _fields([line.partition("=") for line in lines], found)
    if fields.get("objecttype", "Image").lower() != "image" or "dimsize" not in fields:
        raise InputError(f"{path}: not a MetaImage volume (no valid header); export the scan again")
    found.size = found.whole_numbers(fields["dimsize"])
    if fields.get("ndims", "") != str(len(found.size)):
        found.problems.append(f"its header is damaged: {fields.get('ndims', 'no')} dimensions, DimSize {found.size}")
    if fields.get("elementnumberofchannels", "1") != "1" or fields.get("elementtype") not in _META_BYTES:
        found.problems.append(f"not one real value per voxel ({fields.get('elementtype', 'no type')})")
    found.item = _META_BYTES.get(fields.get("elementtype", ""), 0)
    for name, wanted in {
        "binarydata": ("true",),
        "headersize": ("0",),
        "distanceunits": ("mm", "?"),
        "elementtointensityfunctionslope": ("1",),
        "elementtointensityfunctionoffset": ("0",),
    }.items():
        if name in fields and fields[name].lower() not in wanted:
            found.problems.append(f"its header says {name} = {shown(fields[name][:40])}, which is not read; export it")
    found.packed = fields.get("compresseddata", "false").lower() == "true"
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
    if (edges < 0).any():
        found.problems.append(f"its voxel size is {edges.tolist()} mm; export the scan again")
    found.affine[:3, :3] = axes * edges
    found.affine[:3, 3] = np.zeros(3) if first is None else found.numbers(first, 3)


def _nrrd(path: Path, beginning: bytes) -> _Reading:
    end = re.search(rb"\r?\n\r?\n", beginning)
    if end is None or not re.match(rb"NRRD000[1-5]\r?\n", beginning):
        raise InputError(f"{path}: not a NRRD file with its voxels (no valid header); export the scan again")
    found = _Reading(path, path, end.end())
    lines = beginning[: end.start()].decode("latin-1").splitlines()[1:]
    fields = _fields([line.partition(":") for line in lines if not line.startswith("#") and ":=" not in line], found)
    found.size = found.whole_numbers(fields.get("sizes", ""))
    if fields.get("dimension") != str(len(found.size)):
        found.problems.append(f"its header is damaged: dimension {fields.get('dimension')}, sizes {found.size}")
    name = fields.get("type", "none").lower()
    found.item = _NRRD_BYTES.get(_NRRD_NOISE.sub("", name), 0)
    if not found.item:
        found.problems.append(f"not one real value per voxel (type {shown(name[:40])})")
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
    if "spacedirections" in fields:
        vectors = found.numbers(re.sub(r"[(),]", " ", fields["spacedirections"]), 9).reshape(3, 3).T
    elif "spacings" in fields:
        edges = found.numbers(fields["spacings"], 3)
        vectors = np.diag(edges)
        if (edges < 0).any():
            found.problems.append(f"its voxel size is {edges.tolist()} mm; export the scan again")
    else:
        found.problems.append("its header says no voxel size (space directions); export the scan again")
        return
    space = fields.get("space", "").lower()
    if space not in _SPACES or "spacedirections" not in fields or "spaceorigin" not in fields:
        found.doubts.append(
            "its header does not say fully where it lies (space, space directions, space origin); what is missing is"
            " taken for x to the left, y to the back, z to the top"
        )
    signs = np.array(_SPACES.get(space, (1, 1, 1)), dtype=float)
    found.affine[:3, :3] = signs[:, None] * vectors
    if "spaceorigin" in fields:
        found.affine[:3, 3] = signs * found.numbers(re.sub(r"[(),]", " ", fields["spaceorigin"]), 3)


def _fields(parts: Sequence[tuple[str, str, str]], found: _Reading) -> dict[str, str]:
    """Fields by name in small letters without spaces; one that occurs twice is a problem."""
    pairs = [(re.sub(r"\s", "", name).lower(), value.strip()) for name, between, value in parts if between]
    fields = dict(pairs)
    if len(fields) < len(pairs):
        found.problems.append("a field of its header is there twice; export the scan again")
    return fields


def _check_length(found: _Reading, wanted: int) -> None:
    """Compare the bytes of voxels with those that the header announces."""
    stored = found.data.stat().st_size - found.start
    held = stored if not found.packed else _unpacked(found, 2 * wanted) if stored * MOST_PACKED >= wanted else 0
    if held < wanted:
        found.problems.append(
            f"the file is truncated or damaged (it should hold {wanted:,} bytes of voxels); copy or download it again"
        )
    elif held >= 2 * wanted:
        found.problems.append("holds more than one volume of the size in its header; give one 3D scan per file")
    elif held > wanted:
        found.doubts.append(f"it holds {held - wanted:,} bytes more than its header describes, which are not read")


def _unpacked(found: _Reading, most: int) -> int:
    """Bytes that the packed voxels unpack to, at most about ``most``; 0 if they are damaged."""
    total = 0
    unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # zlib and gzip
    try:
        with open(found.data, "rb") as stream:
            stream.seek(found.start)
            while total < most and not unpack.eof and (chunk := unpack.unconsumed_tail or stream.read(_CHUNK)):
                total += len(unpack.decompress(chunk, _CHUNK))
    except zlib.error:
        return 0
    return total if unpack.eof or total >= most else 0


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (values + 0.0).tolist()
    return x, y, z
