"""What a NIfTI-1 header says, read in one place: what cannot be meant is refused, what may be meant otherwise is said.

Programs differ in what they make of an odd header, and most say nothing. This reading is nibabel's (and FSL's and
MONAI's): the sform places the grid if its code is set, else the qform, and the voxel size is that of what places it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from nibabel import Nifti1Header
from numpy.typing import NDArray

from duomod.errors import InputError

Affine = NDArray[np.float64]

HEADER_BYTES = 348
_NIFTI2_BYTES = 540

#: No packed file holds more than so many times its own size.
MOST_PACKED = 1032

_FIRST_OFFSET = 352

#: Number types of one real value: NIfTI's code -> numpy's.
_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_OTHER_TYPES = {1: "bits", 32: "complex", 128: "RGB", 1536: "float128", 1792: "complex", 2048: "complex", 2304: "RGBA"}

_UNITS = {1: "metres", 3: "micrometres"}
_CODES = {1: "scanner", 2: "aligned", 3: "Talairach", 4: "MNI", 5: "template"}

#: Beyond these a header cannot be that of a scan of a body: voxel edges, distance of the first voxel from the world's
#: origin, volume of all voxels.
_EDGE_MM = (1e-3, 1e3)
_FARTHEST_MM = 1e5
_MOST_LITRES = 8000.0

#: A scan that is shorter along all axes is odd: resampled, one voxel would be left of it.
_SHORTEST_MM = 2.0

#: Above this cosine two axes are not at right angles.
_MOST_SHEAR = 1e-4

#: As in ``grid.SAME_WITHIN``: what moves no voxel by more than this share of the shortest edge is rounding.
_ROUNDING = 0.05

#: Voxel sizes nearer than this, relatively, differ by the rounding of float32 only.
_FLOAT32 = 1e-6


@dataclass(frozen=True)
class NiftiHeader:
    """A header whose every field that matters here can be meant.

    Attributes:
        fields: As they are in the file.
        source: The file, for messages.
        dtype: Of the stored voxels, in the file's byte order.
        affine: 4x4, from voxel index (x, y, z) to the world (RAS, mm).
        doubts: What other programs may read otherwise, in sentences without the file's name.
    """

    fields: Nifti1Header
    source: str
    dtype: np.dtype[np.generic]
    affine: Affine
    doubts: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels in x, y, z."""
        x, y, z = (int(n) for n in self.fields["dim"][1:4])
        return x, y, z

    @property
    def offset(self) -> int:
        """Where the voxels begin in the (unpacked) file."""
        return int(self.fields["vox_offset"])

    @property
    def data_bytes(self) -> int:
        """Bytes of all voxels as stored."""
        return math.prod(self.size) * self.dtype.itemsize

    @property
    def end(self) -> int:
        """Where the voxels end in the (unpacked) file."""
        return self.offset + self.data_bytes

    @property
    def scaling(self) -> tuple[float, float] | None:
        """Slope and intercept to apply; None where there are none."""
        slope, inter = float(self.fields["scl_slope"]), float(self.fields["scl_inter"])
        return None if not math.isfinite(slope) or slope == 0 or (slope, inter) == (1, 0) else (slope, inter)

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel edges in mm along x, y, z: those of what places the grid, as ``pixdim`` rounds them if it agrees."""
        edges, stated = _edges(self.affine), self.fields["pixdim"][1:4].astype(float)
        x, y, z = np.where(np.abs(stated - edges) <= _FLOAT32 * edges, stated, edges).tolist()
        return x, y, z

    @cached_property
    def direction(self) -> tuple[float, ...]:
        """The 3x3 matrix of direction cosines row by row, in SimpleITK's world (LPS)."""
        lps = np.diag([-1.0, -1.0, 1.0]) @ self.affine[:3, :3] / _edges(self.affine)
        return tuple((lps + 0.0).ravel().tolist())  # no negative zeros

    @property
    def origin(self) -> tuple[float, float, float]:
        """Centre of the first voxel in mm, in SimpleITK's world (LPS)."""
        x, y, z = self.affine[:3, 3].tolist()
        return -x + 0.0, -y + 0.0, z


def parse_nifti(data: bytes, source: str) -> NiftiHeader:
    """Read a header.

    Args:
        data: The first bytes of the (unpacked) file, at least 348 where there are as many.
        source: The file, put before each problem.

    Raises:
        InputError: lists everything in it that cannot be meant.
    """
    fields = _fields(data, source)
    problems: list[str] = []
    doubts: list[str] = []
    kind = _number_type(fields, problems, doubts)
    _check_offset(fields, problems)
    _check_scaling(fields, problems, doubts)
    affine = _affine(fields, problems, doubts)
    if problems or kind is None or affine is None:
        raise InputError([f"{source}: {text}" for text in problems])
    return NiftiHeader(fields, source, kind, affine, tuple(doubts))


def _fields(data: bytes, source: str) -> Nifti1Header:
    """The fields of a header of one 3D volume, in the right byte order.

    Raises:
        InputError: it is none.
    """
    sizes = {int.from_bytes(data[:4], order) for order in ("little", "big")} if len(data) >= 4 else set()
    if _NIFTI2_BYTES in sizes:
        raise InputError(f"{source}: a NIfTI-2 file, which cannot be read here; save it as NIfTI-1 (the usual .nii.gz)")
    known = len(data) >= HEADER_BYTES and HEADER_BYTES in sizes
    if known and data[344:348] == b"ni1\0":
        raise InputError(
            f"{source}: only the header of a pair of files (.hdr and .img); convert the pair to one .nii.gz file"
        )
    if not known or data[344:348] != b"n+1\0":
        raise InputError(f"{source}: not a NIfTI file (no valid header); export the scan as NIfTI")
    order = "<" if int.from_bytes(data[:4], "little") == HEADER_BYTES else ">"
    fields = Nifti1Header(data[:HEADER_BYTES], order, check=False)
    axes = int(fields["dim"][0])
    shape = [int(n) for n in fields["dim"][1 : axes + 1]] if 1 <= axes <= 7 else []
    if not shape or min(shape) < 1:
        sizes_text = " x ".join(map(str, shape)) or f"{axes} axes"
        raise InputError(
            f"{source}: not a NIfTI file (no valid header: its size is {sizes_text}); export the scan again"
        )
    if len(shape) != 3:
        size = " x ".join(map(str, shape))
        raise InputError(f"{source}: a {len(shape)}D file ({size}); duomod needs 3D volumes: give one 3D scan per file")
    return fields


def _number_type(fields: Nifti1Header, problems: list[str], doubts: list[str]) -> np.dtype[np.generic] | None:
    code = int(fields["datatype"])
    if code not in _TYPES:
        what = _OTHER_TYPES.get(code, f"unknown number type {code}")
        problems.append(f"not a 3D volume with one real value per voxel ({what}); give one such scan per file")
        return None
    kind: np.dtype[np.generic] = np.dtype(fields.endianness + _TYPES[code])
    if int(fields["bitpix"]) != kind.itemsize * 8:
        doubts.append(
            f"its header says {int(fields['bitpix'])} bits per voxel, but its number type has {kind.itemsize * 8};"
            " the number type counts"
        )
    return kind


def _check_offset(fields: Nifti1Header, problems: list[str]) -> None:
    offset = float(fields["vox_offset"])
    if not math.isfinite(offset) or offset != int(offset) or not _FIRST_OFFSET <= offset < 2**31:
        problems.append(
            f"its voxels cannot begin at byte {offset:g} (vox_offset; {_FIRST_OFFSET} or more); export the scan again"
        )


def _check_scaling(fields: Nifti1Header, problems: list[str], doubts: list[str]) -> None:
    slope, inter = float(fields["scl_slope"]), float(fields["scl_inter"])
    if math.isinf(slope) or (math.isfinite(slope) and slope != 0 and not math.isfinite(inter)):
        problems.append(
            f"its values cannot be scaled by {slope:g} and {inter:g} (scl_slope, scl_inter); export it again"
        )
    elif (slope == 0 or math.isnan(slope)) and inter != 0 and not math.isnan(inter):
        doubts.append(f"its slope is {slope:g}, so its intercept of {inter:g} is not applied")


def _affine(fields: Nifti1Header, problems: list[str], doubts: list[str]) -> Affine | None:
    """Where the header places the grid; None where that cannot be known."""
    units = int(fields["xyzt_units"]) & 7
    if units in _UNITS:
        problems.append(f"its lengths are in {_UNITS[units]}, which not all programs heed; save it in mm")
    elif units not in (0, 2):
        doubts.append(f"its unit of length is unknown (code {units}); taken for mm")
    stated = fields["pixdim"][1:4].astype(float)
    if not _edges_are_possible(stated):
        problems.append(f"its voxel size is {_times(stated)} mm (pixdim); correct its header, or export the scan again")
        return None
    codes = {"qform": int(fields["qform_code"]), "sform": int(fields["sform_code"])}
    unknown = [f"{form} code {code}" for form, code in codes.items() if code != 0 and code not in _CODES]
    if unknown:
        problems.append(f"its orientation is of an unknown kind ({', '.join(unknown)}); export the scan again")
        return None
    qform = _qform(fields, problems) if codes["qform"] else None
    sform: Affine | None = np.asarray(fields.get_sform(), dtype=float) if codes["sform"] else None
    if problems:
        return None
    if sform is None and qform is None:
        doubts.append(
            "neither its qform nor its sform is set, so nobody knows where left and right are; taken as nibabel does:"
            " x to the left, y to the front, z to the top"
        )
        found: Affine = np.asarray(fields.get_base_affine(), dtype=float)
    else:
        found = sform if sform is not None else qform  # type: ignore[assignment]
    problems += grid_problems(found, fields["dim"][1:4])
    if not problems:
        doubts += grid_doubts(found, fields["dim"][1:4])
    if sform is not None and not problems:
        _compare_spacing(sform, stated, fields, doubts)
        if qform is not None:
            _compare_forms(sform, qform, fields, problems, doubts)
    return None if problems else found


def _qform(fields: Nifti1Header, problems: list[str]) -> Affine | None:
    parts = [
        float(fields[f"q{name}"]) for name in ("uatern_b", "uatern_c", "uatern_d", *(f"offset_{a}" for a in "xyz"))
    ]
    handed = float(fields["pixdim"][0])
    used = fields.copy()
    # The standard reads 0 as 1; so do all programs.
    used["pixdim"][0] = handed or 1.0
    try:
        if not all(map(math.isfinite, parts)):
            raise ValueError
        if handed not in (-1, 0, 1):
            problems.append(f"its qform is neither left- nor right-handed (pixdim[0] is {handed:g}); export it again")
            return None
        return np.asarray(used.get_qform(), dtype=float)
    except ValueError:
        shown = ", ".join(f"{value:g}" for value in parts)
        problems.append(f"its orientation is no rotation (qform {shown}); export the scan again")
        return None


def grid_problems(affine: Affine, size: Sequence[int]) -> list[str]:
    """What is impossible about a grid: its voxel size, its shear, its extent, its place.

    Args:
        affine: 4x4, from voxel index to the world, in mm.
        size: Voxels in x, y, z.
    """
    edges = _edges(affine)
    if not np.isfinite(affine).all() or not _edges_are_possible(edges):
        what = f"voxels of {_times(edges)} mm" if np.isfinite(affine).all() else "NaN or infinite"
        return [f"its orientation is impossible ({what}); correct its header, or export the scan again"]
    problems = []
    axes = affine[:3, :3] / edges
    if np.abs(axes.T @ axes - np.eye(3)).max() > _MOST_SHEAR:
        problems.append(
            "its orientation matrix is sheared (direction cosines not orthonormal); correct its header, or resample it"
            " with a tool that accepts shears"
        )
    litres = float(np.prod(edges * np.asarray(size, dtype=float))) * 1e-6
    if litres > _MOST_LITRES:
        problems.append(f"its voxels fill {litres:,.0f} litres, which no scan of a body does; correct its voxel size")
    if np.abs(affine[:3, 3]).max() > _FARTHEST_MM:
        problems.append(f"its first voxel lies at ({_times(affine[:3, 3], ', ')}) mm; export the scan again")
    return problems


def grid_doubts(affine: Affine, size: Sequence[int]) -> list[str]:
    """What is odd about a possible grid."""
    longest_mm = float((_edges(affine) * np.asarray(size, dtype=float)).max())
    if longest_mm >= _SHORTEST_MM:
        return []
    return [f"its longest side is {longest_mm:.3g} mm; is its voxel size in another unit?"]


def _compare_spacing(sform: Affine, stated: NDArray[np.float64], fields: Nifti1Header, doubts: list[str]) -> None:
    edges = _edges(sform)
    if np.linalg.norm((edges - stated) * fields["dim"][1:4]) > _ROUNDING * edges.min():
        doubts.append(
            f"its voxel size is {_times(stated)} mm by pixdim, but {_times(edges)} mm by the sform, which counts"
        )


def _compare_forms(sform: Affine, qform: Affine, fields: Nifti1Header, problems: list[str], doubts: list[str]) -> None:
    """Refuse forms that exchange left and right; say it where they differ otherwise."""
    # By direction alone: that the voxel sizes differ has been said.
    qform = qform.copy()
    qform[:3, :3] *= _edges(sform) / _edges(qform)
    mirrored = np.linalg.det(qform[:3, :3]) * np.linalg.det(sform[:3, :3]) < 0
    if mirrored or float(qform[0, :3] @ sform[0, :3]) < 0:
        problems.append(
            "its qform and its sform exchange left and right, and which is true is not known; correct its header"
        )
        return
    ends = np.array(list(itertools.product(*((0, int(n) - 1) for n in fields["dim"][1:4]))), dtype=float)
    apart_mm = np.linalg.norm(ends @ (qform - sform)[:3, :3].T + (qform - sform)[:3, 3], axis=1).max()
    if apart_mm > _ROUNDING * _edges(sform).min():
        kinds = [_CODES[int(fields[name])] for name in ("qform_code", "sform_code")]
        doubts.append(
            f"its qform ({kinds[0]}) and its sform ({kinds[1]}) place voxels up to {apart_mm:.3g} mm apart; the sform"
            " counts"
        )


def _edges(affine: Affine) -> NDArray[np.float64]:
    """Voxel edges in mm along x, y, z."""
    edges: NDArray[np.float64] = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return edges


def _edges_are_possible(edges_mm: NDArray[np.float64]) -> bool:
    return bool((edges_mm >= _EDGE_MM[0]).all() and (edges_mm <= _EDGE_MM[1]).all())  # false for NaN


def _times(values: NDArray[np.float64], between: str = " x ") -> str:
    return between.join(f"{value:.6g}" for value in values)
