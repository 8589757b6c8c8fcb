"""Whether slices form one regular grid. Their places decide, not what headers call thickness or distance."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from duomod.datasets.case_names import shown
from duomod.datasets.dicom.header import Unusable
from duomod.datasets.dicom.planes import Plane
from duomod.datasets.folder import listed
from duomod.datasets.grid import Geometry

#: Farthest that a slice may lie from its place on the regular grid, which is taken for rounding: along the normal as a
#: share of the distance of slices, within its plane as a share of that of voxels.
_UNEVEN, _OFF = 0.02, 0.1

#: Largest sine of the angle between the stacking direction and the slices' normal (gantry tilt).
_TILT = 1e-3

#: Largest difference between the direction cosines of two slices, and of their length from one.
_COSINE, _UNIT = 1e-4, 1e-3

Numbers = NDArray[np.float64]


def named(paths: Iterable[Path], folder: Path) -> str:
    """Name files as they lie in a folder: the first few, then how many more."""
    inside = (path.relative_to(folder) if path.is_relative_to(folder) else path for path in dict.fromkeys(paths))
    return listed([shown(path) for path in inside])


def sentences(folder: Path, wrong: Iterable[tuple[Path, Unusable]]) -> list[str]:
    """One sentence a reason, naming the folder and the files in it."""
    by_reason: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path, reason in wrong:
        by_reason[reason.what, reason.advice].append(path)
    return [f"{folder}: {what} in {named(paths, folder)}; {advice}" for (what, advice), paths in by_reason.items()]


def stack(
    planes: Sequence[Plane], rows_columns: tuple[int, int], folder: Path
) -> tuple[tuple[Plane, ...], Geometry, list[str]]:
    """Order slices in space and make sure that they form one regular grid.

    Args:
        planes: In any order.
        rows_columns: Voxels of a slice.
        folder: Files are named within it.

    Returns:
        The slices along their normal; the grid; and sentences (without the folder) about what is doubtful.

    Raises:
        Unusable: fewer than two slices, slices that differ in what makes one stack, lie where another one lies, are
            missing, uneven, shifted or tilted. Its ``what`` says where.
    """
    if len(planes) < 2:
        raise Unusable(f"only {len(planes)} DICOM slice", "a scan needs at least 2: give the whole folder")
    _agreement(planes, folder)
    row, column, normal = _axes(planes, folder)
    position_mm = np.array([plane.position_mm for plane in planes])
    along_mm = position_mm @ normal
    order = np.argsort(along_mm, kind="stable")
    ordered = tuple(planes[i] for i in order.tolist())
    _distances(ordered, along_mm[order], folder)
    position_mm = position_mm[order]
    stack_mm = position_mm[-1] - position_mm[0]
    step_mm = float(np.linalg.norm(stack_mm)) / (len(planes) - 1)
    doubts = _straight(position_mm, normal, min(planes[0].pixel_mm), ordered, folder)
    down_mm, along_row_mm = planes[0].pixel_mm
    geometry = Geometry(
        size=(rows_columns[1], rows_columns[0], len(planes)),
        spacing=(along_row_mm, down_mm, step_mm),
        origin=tuple(position_mm[0].tolist()),
        direction=tuple(np.stack([row, column, normal], axis=1).ravel().tolist()),
    )
    return ordered, geometry, doubts + _numbering(ordered)


def _agreement(planes: Sequence[Plane], folder: Path) -> None:
    """Refuse slices of several scans, kinds or sizes."""
    different = []
    for keyword in planes[0].agree:
        count = Counter(plane.agree[keyword] for plane in planes)
        if len(count) > 1:
            pairs = [(plane.agree[keyword], plane.path) for plane in planes]
            different.append(f"{keyword}: {_shares(count, pairs, folder, secret=keyword == 'PatientID')}")
    if different:
        raise Unusable(f"slices that are not of one stack ({'; '.join(different)})", "keep one stack only")
    without = [plane.path for plane in planes if plane.rescale is None]
    if 0 < len(without) < len(planes):
        what = f"no RescaleSlope and RescaleIntercept in {named(without, folder)}, but in the other slices"
        raise Unusable(what, "export the series again with it; it must not be guessed")
    spacing = np.array([plane.pixel_mm for plane in planes])
    if (np.ptp(spacing, axis=0) > 1e-4 * spacing.min(axis=0)).any():
        pairs = [(f"{p.pixel_mm[0]:g} x {p.pixel_mm[1]:g} mm", p.path) for p in planes]
        count = Counter(value for value, _ in pairs)
        raise Unusable(f"slices of different PixelSpacing ({_shares(count, pairs, folder)})", "keep one stack only")


def _shares(count: Counter[str], pairs: Sequence[tuple[str, Path]], folder: Path, secret: bool = False) -> str:
    """The values that occur: the usual one, and the others with their files; ``secret``: only the files."""
    (usual, _), *others = count.most_common()
    texts = []
    for value, _ in others[:3]:
        names = named((path for one, path in pairs if one == value), folder)
        texts.append(f"{'another' if secret else value or 'none'} in {names}")
    more = [f"{len(others) - 3} more values"] if len(others) > 3 else []
    return ", ".join([*([] if secret else [usual or "none"]), *texts, *more])


def _axes(planes: Sequence[Plane], folder: Path) -> tuple[Numbers, Numbers, Numbers]:
    """Directions of rows, of columns, and the normal; orthonormal."""
    orientation = np.array([plane.orientation for plane in planes])
    usual = np.median(orientation, axis=0)
    off = np.abs(orientation - usual).max(axis=1) > _COSINE
    if off.any():
        # Among a few slices the median may be none of them: then the largest group of equal ones is the usual one.
        count = Counter(tuple(np.round(one, 3)) for one in orientation)
        usual = np.array(count.most_common(1)[0][0])
        off = np.abs(orientation - usual).max(axis=1) > 2e-3
        names = named((planes[i].path for i in np.flatnonzero(off).tolist()), folder)
        raise Unusable(
            f"slices of different orientation (a localizer among them? {names or 'slightly different ones'})",
            "keep one stack only",
        )
    row, column = orientation[0, :3], orientation[0, 3:]
    if max(abs(np.linalg.norm(row) - 1), abs(np.linalg.norm(column) - 1), abs(row @ column)) > _UNIT:
        raise Unusable(
            "an ImageOrientationPatient whose two directions are no unit vectors at right angles",
            "correct the header, or export the series again",
        )
    # Written cosines are rounded; made exactly orthonormal in ITK's way, so that it is the grid that ITK reads.
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    row = np.cross(column, normal)
    row /= np.linalg.norm(row)
    return row, np.cross(normal, row), normal


def _distances(ordered: Sequence[Plane], along_mm: Numbers, folder: Path) -> None:
    steps_mm = np.diff(along_mm)
    usual_mm = float(np.median(steps_mm))
    twice = np.flatnonzero(steps_mm < 1e-3)
    if len(twice):
        pairs = "; ".join(named((ordered[i].path, ordered[i + 1].path), folder) for i in twice[:3].tolist())
        more = f"; {len(twice) - 3} more" if len(twice) > 3 else ""
        raise Unusable(f"{len(twice)} slice(s) where another one lies ({pairs}{more})", "keep one stack only")
    places_mm = along_mm[0] + np.arange(len(along_mm)) * (along_mm[-1] - along_mm[0]) / (len(along_mm) - 1)
    if np.abs(along_mm - places_mm).max() > max(_UNEVEN * usual_mm, 1e-3):
        where = int(np.abs(steps_mm - usual_mm).argmax())
        names = named((ordered[where].path, ordered[where + 1].path), folder)
        absent = _absent(ordered)
        raise Unusable(
            f"slices are missing or unevenly spaced ({usual_mm:g} mm apart as a rule, but {steps_mm[where]:g} mm"
            f" between slices {where + 1} and {where + 2} of {len(ordered)}: {names};"
            f" instance numbers that are not there: {absent or 'none'})",
            "copy the series again, or resample it",
        )
    if usual_mm > 100:
        raise Unusable(f"slices {usual_mm:g} mm apart", "correct the header, or export the series again")


def _straight(
    position_mm: Numbers, normal: Numbers, pixel_mm: float, ordered: Sequence[Plane], folder: Path
) -> list[str]:
    """Refuse a tilted or shifted stack; say by how much a nearly straight one is off."""
    from_first_mm = position_mm - position_mm[0]
    within_mm = from_first_mm - np.outer(from_first_mm @ normal, normal)
    drift_mm = float(np.linalg.norm(within_mm[-1]))
    share = np.arange(len(position_mm)) / (len(position_mm) - 1)
    jitter_mm = np.linalg.norm(within_mm - np.outer(share, within_mm[-1]), axis=1)
    if jitter_mm.max() > _OFF * pixel_mm:
        where = int(jitter_mm.argmax())
        raise Unusable(
            f"slices shifted against each other within their plane ({named([ordered[where].path], folder)}:"
            f" {jitter_mm[where]:.3g} mm)",
            "export the series again, or resample it",
        )
    if drift_mm > _TILT * np.linalg.norm(from_first_mm[-1]):
        raise Unusable("a tilted gantry (its slices are sheared)", "correct the tilt and export it again")
    if drift_mm > _OFF * pixel_mm:
        return [f"orientation and positions disagree by {drift_mm:.2g} mm from the first to the last slice (rounded?)"]
    return []


def _numbering(ordered: Sequence[Plane]) -> list[str]:
    """What the scanner's numbers say about slices that may be missing where no gap can be seen."""
    numbers = sorted(plane.instance for plane in ordered if plane.instance is not None)
    if len(numbers) < len(ordered) or len(set(numbers)) < len(numbers):
        return []
    doubts = []
    if numbers[0] > 1:
        doubts.append(f"instance numbers begin at {numbers[0]}: slices before may be missing")
    absent = _absent(ordered)
    if absent:
        doubts.append(f"instance numbers {absent} are not there, although no place is empty")
    return doubts


def _absent(ordered: Sequence[Plane]) -> str:
    """The numbers between the smallest and the largest that no slice has; empty if none, or if they tell nothing."""
    numbers = {plane.instance for plane in ordered if plane.instance is not None}
    if not numbers or max(numbers) - min(numbers) > 10 * len(ordered):
        return ""
    return listed([str(one) for one in range(min(numbers), max(numbers)) if one not in numbers])
