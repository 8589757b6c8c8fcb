"""One case as a script that a page can load from disk: volumes, label maps, surfaces and numbers.

A page opened from ``file://`` may not fetch files, but it may load scripts. A case is therefore a ``.js`` file that
calls ``DuomodViewer.add(<case id>, {...})`` with everything in it: voxels are gzip-compressed and base64-encoded, and
the browser only decompresses and draws. Arrays in the file run x fastest, then y, then z, and x, y, z point to the
patient's right, front and top (RAS).
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from duomod.errors import InputError
from duomod.evaluation.cases import Settings, read_labels
from duomod.evaluation.policy import DEFAULT_POLICY
from duomod.inference.dicom import find_series, read_series
from duomod.preprocessing.geometry import Geometry, canonical, read_image, resample_image, resample_label, to_array
from duomod.report.palette import FALSE_NEGATIVE, FALSE_POSITIVE, organ_colour
from duomod.report.viewer.surfaces import meshes
from duomod.workspace import atomic_path

#: Around the labelled box, so that organs are seen in their surroundings.
MARGIN_MM = 25.0

#: CT values that a 12-bit scanner gives; what metal adds beyond it is of no use on a screen.
_HU = (-1024, 3071)
CT_WINDOW = (-125.0, 275.0)
_MR_LEVELS = 1023

Volume = NDArray[np.generic]
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Overlay:
    """A predicted label map and what to call it, e.g. ``duomodnet, seed 0``."""

    name: str
    path: Path


@dataclass(frozen=True)
class LabelFacts:
    """Numbers of one label map on the scan's full grid; one entry per class, background left out.

    Attributes:
        name: ``truth``, or the prediction's name.
        ml: Volumes.
        dice: Against the truth; None where both are empty, or the whole list None without a truth.
    """

    name: str
    ml: tuple[float, ...]
    dice: tuple[float | None, ...] | None = None


@dataclass(frozen=True)
class CaseSummary:
    """What :func:`write_case` wrote.

    Attributes:
        case: Case id.
        path: The script.
        size: Voxels in the script, x y z.
        spacing: mm, x y z.
        notes: Sentences about what was cut off or coarsened.
        truth: Volumes of the truth, or None.
        predictions: In the order given.
    """

    case: str
    path: Path
    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    notes: tuple[str, ...]
    truth: LabelFacts | None = None
    predictions: tuple[LabelFacts, ...] = field(default=())


def packed(array: NDArray[Any]) -> str:
    """Return an array's bytes (little endian) gzip-compressed, as base64. The same array always gives the same text.

    Two-byte values are stored as all low bytes, then all high bytes: the high ones hardly vary, and compress to little.
    """
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    if little.dtype.itemsize == 2:
        raw = np.ascontiguousarray(little.view(np.uint8).reshape(-1, 2).T).tobytes()
    else:
        raw = little.tobytes()
    return base64.b64encode(gzip.compress(raw, compresslevel=6, mtime=0)).decode("ascii")


def script_text(case: str, data: Mapping[str, Any]) -> str:
    """Return the call of ``DuomodViewer.add``. Safe inside a page too: ``</script>`` cannot occur in it."""
    arguments = ", ".join(
        json.dumps(part, ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
        for part in (case, data)
    )
    return f"DuomodViewer.add({arguments});\n"


def write_case(
    target: Path,
    case: str,
    image: Path,
    truth: Path | None,
    predictions: Sequence[Overlay],
    spec_names: Sequence[str],
    *,
    modality: Literal["CT", "MR"],
    max_voxels: int = 12_000_000,
    label_merges: Mapping[int, int] | None = None,
) -> CaseSummary:
    """Write the viewer's script of a case, atomically.

    Args:
        target: The ``.js`` file.
        case: Id under which the page finds the case.
        image: The scan: a NIfTI file or a DICOM folder.
        truth: True label map, or None.
        predictions: Predicted label maps.
        spec_names: Class names, background first.
        modality: CT values are Hounsfield units; MR values get a window of their own.
        max_voxels: Above this the finest axes are made coarser, for the screen only: numbers come from the full grid.
        label_merges: Raw label value -> class index, applied when label maps are read.

    Returns:
        What was written, with volumes and Dice.

    Raises:
        InputError: a file cannot be read, has unknown labels, or grids differ; all of it is listed.
    """
    scan, maps = read_case(
        image,
        truth,
        predictions,
        label_settings(len(spec_names), label_merges),
    )
    grid = Geometry.of(scan)
    full = [to_array(one).astype(np.uint8, copy=False) for one in maps]
    facts = _facts(full, truth is not None, predictions, len(spec_names), grid)

    box, cropped = _crop(full, grid)
    spacing = _coarser(grid.spacing, box, max_voxels)
    shown, shown_maps = _cut(scan, box), [_cut(one, box) for one in maps]
    notes = []
    if cropped:
        notes.append(f"Cut to the labelled region and {MARGIN_MM:g} mm around it.")
    if spacing != grid.spacing:
        fine, coarse = (" × ".join(f"{value:.3g}" for value in values) for values in (grid.spacing, spacing))
        notes.append(
            f"Shown with voxels of {coarse} mm; the scan has {fine} mm. All numbers come from the scan's grid."
        )
        shown = resample_image(shown, spacing, outside=float(to_array(shown).min()))
        shown_maps = [resample_label(one, spacing) for one in shown_maps]
    affine, tilt = _world(Geometry.of(shown))
    if tilt > 1:
        notes.append(f"The scan is tilted by {tilt:.0f}° against the body's axes; the planes are the scan's own.")

    small = [to_array(one).astype(np.uint8, copy=False) for one in shown_maps]
    label_maps = []
    for index, (fact, one) in enumerate(zip(facts, small, strict=True)):
        label_maps.append(
            {
                "name": fact.name,
                "truth": truth is not None and index == 0,
                "data": packed(one),
                "ml": [round(value, 4) for value in fact.ml],
                "dice": None if fact.dice is None else [None if d is None else round(d, 6) for d in fact.dice],
                "centres": _centres(one, len(spec_names)),
                "meshes": [
                    None if mesh is None else mesh.as_json(packed)
                    for mesh in meshes(one, shown.GetSpacing(), len(spec_names))
                ],
            }
        )
    data = {
        "format": 1,
        "modality": modality,
        "size": list(shown.GetSize()),
        "spacing": [round(value, 6) for value in shown.GetSpacing()],
        "affine": affine,
        "notes": notes,
        "image": _grey(to_array(shown), modality),
        "classes": [
            {"label": label, "name": str(spec_names[label]), "colour": organ_colour(label)}
            for label in range(1, len(spec_names))
        ],
        "errors": {"missed": FALSE_NEGATIVE, "extra": FALSE_POSITIVE},
        "maps": label_maps,
    }
    with atomic_path(target) as temporary:
        temporary.write_text(script_text(case, data), encoding="ascii")
    true_facts, predicted = (facts[0], facts[1:]) if truth is not None else (None, facts)
    return CaseSummary(case, target, shown.GetSize(), shown.GetSpacing(), tuple(notes), true_facts, tuple(predicted))


def read_scan(path: Path) -> sitk.Image:
    """Read a NIfTI file or the DICOM series in a folder.

    Raises:
        InputError: it cannot be read, or the folder holds no series or several.
    """
    if not path.is_dir():
        return read_image(path)
    series, problems = find_series(path)
    if problems:
        raise InputError(problems)
    if len(series) != 1:
        raise InputError(f"{path}: holds {len(series)} DICOM series; give the folder of one series, or a NIfTI file")
    return read_series(series[0])


def label_settings(num_classes: int | None = None, label_merges: Mapping[int, int] | None = None) -> Settings:
    """How label maps are read for a picture: as for scoring, with nothing to score."""
    return Settings((), DEFAULT_POLICY, num_classes=num_classes, label_merges=label_merges or {})


def read_case(
    image: Path, truth: Path | None, predictions: Sequence[Overlay], settings: Settings
) -> tuple[sitk.Image, list[sitk.Image]]:
    """Read a scan (NIfTI file or DICOM folder) and label maps of it, all turned to RAS.

    Returns:
        The scan, and the label maps: the truth, if given, then the predictions.

    Raises:
        InputError: lists every file that cannot be read or does not lie on the scan's grid.
    """
    problems: list[str] = []

    def attempt(read: Callable[[], sitk.Image]) -> sitk.Image | None:
        try:
            return canonical(read())
        except InputError as error:
            problems.extend(error.problems)
            return None

    def labels(path: Path) -> sitk.Image:
        array, geometry = read_labels(path, settings)
        return geometry.image_of(array)

    scan = attempt(lambda: read_scan(image))
    paths = [*([truth] if truth is not None else []), *(one.path for one in predictions)]
    maps = [attempt(lambda path=path: labels(path)) for path in paths]  # type: ignore[misc]
    if scan is not None:
        for path, one in zip(paths, maps, strict=True):
            if one is not None and (differences := Geometry.of(one).differences(Geometry.of(scan))):
                problems.append(
                    f"{path}: lies on another grid than the scan {image}: {'; '.join(differences)}"
                    " (in right-front-top order); give the label map of this scan, on its own grid"
                )
    if problems or scan is None:
        raise InputError(problems)
    return scan, [one for one in maps if one is not None]


def _facts(
    maps: Sequence[Labels], has_truth: bool, predictions: Sequence[Overlay], classes: int, grid: Geometry
) -> list[LabelFacts]:
    """Volumes and Dice on the full grid."""
    voxel_ml = float(np.prod(grid.spacing)) / 1000
    counts = [np.bincount(one.ravel(), minlength=classes)[1:] for one in maps]
    names = [*(["truth"] if has_truth else []), *(one.name for one in predictions)]
    facts = []
    for index, (name, one, count) in enumerate(zip(names, maps, counts, strict=True)):
        ml = tuple(float(value) * voxel_ml for value in count)
        if not has_truth or index == 0:
            facts.append(LabelFacts(name, ml))
            continue
        common = np.bincount(one[one == maps[0]], minlength=classes)[1:]
        total = count + counts[0]
        dice = tuple(2 * int(c) / int(t) if t else None for c, t in zip(common, total, strict=True))
        facts.append(LabelFacts(name, ml, dice))
    return facts


def _crop(maps: Sequence[Labels], grid: Geometry) -> tuple[list[tuple[int, int]], bool]:
    """First and last + 1 index to show per axis, in x, y, z; and whether that leaves something out."""
    whole = [(0, size) for size in grid.size]
    found = np.zeros(grid.shape, dtype=bool)
    for one in maps:
        found |= one > 0
    if not found.any():
        return whole, False
    box = []
    for axis, size, spacing in zip((2, 1, 0), grid.size, grid.spacing, strict=True):
        where = np.flatnonzero(found.any(axis=tuple(a for a in range(3) if a != axis)))
        margin = int(np.ceil(MARGIN_MM / spacing))
        box.append((max(0, int(where[0]) - margin), min(size, int(where[-1]) + 1 + margin)))
    return box, box != whole


def _coarser(
    spacing: tuple[float, float, float], box: Sequence[tuple[int, int]], max_voxels: int
) -> tuple[float, float, float]:
    """Raise the finest spacings to a common value until the box has few enough voxels."""
    extent = [(stop - start) * mm for (start, stop), mm in zip(box, spacing, strict=True)]

    def voxels(finest: float) -> int:
        return int(np.prod([max(1, round(e / max(mm, finest))) for e, mm in zip(extent, spacing, strict=True)]))

    low, high = min(spacing), max(extent)
    if voxels(low) <= max_voxels:
        return spacing
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if voxels(middle) <= max_voxels else (middle, high)
    x, y, z = (max(mm, high) for mm in spacing)
    return x, y, z


def _cut(image: sitk.Image, box: Sequence[tuple[int, int]]) -> sitk.Image:
    return sitk.RegionOfInterest(image, [stop - start for start, stop in box], [start for start, _ in box])


def _world(grid: Geometry) -> tuple[list[list[float]], float]:
    """Voxel index (x, y, z, 1) to mm in RAS, three rows; and the largest angle to the body's axes in degrees."""
    direction = np.asarray(grid.direction).reshape(3, 3)
    rows = np.column_stack([direction @ np.diag(grid.spacing), grid.origin])
    rows[:2] *= -1  # ITK's world is LPS
    cosines = np.abs(np.diag(direction)).clip(0, 1)
    return [[round(float(v), 6) for v in row] for row in rows], float(np.degrees(np.arccos(cosines.min())))


def _centres(labels: Labels, classes: int) -> list[list[int] | None]:
    """Of each class the labelled voxel (x, y, z) nearest to its centre of mass: a bent organ's lies outside it."""
    centres: list[list[int] | None] = []
    for label in range(1, classes):
        where = np.argwhere(labels == label)
        if not len(where):
            centres.append(None)
            continue
        distance = ((where - where.mean(0)) ** 2).sum(1)
        centres.append([int(v) for v in where[int(distance.argmin())][::-1]])
    return centres


def window_of(values: NDArray[np.float32], modality: str) -> tuple[float, float]:
    """Values shown as black and white at first: for CT the abdomen's HU, for MR the 0.5th and 99.5th percentile."""
    if modality == "CT":
        return CT_WINDOW
    inside = values[values > values.min()]
    low, high = (float(v) for v in np.percentile(inside if inside.size else values, (0.5, 99.5)))
    return low, high if high > low else low + 1


def _grey(image: Volume, modality: str) -> dict[str, Any]:
    """The scan as int16 with the scale that restores its values, and the window to begin with.

    ``exact`` says whether values are restored exactly; ``ends`` holds the lowest and highest stored value where values
    beyond them were clipped, else None.
    """
    values = image.astype(np.float32)
    floor, ceiling = float(values.min()), float(values.max())
    low, high = window_of(values, modality)
    if modality == "CT":
        first, last = max(floor, _HU[0]), min(ceiling, _HU[1])
        start, slope, exact = 0.0, 1.0, True
        ends = [_HU[0] if floor < _HU[0] else None, _HU[1] if ceiling > _HU[1] else None]
    else:
        # A few extreme voxels must not take the levels from all others.
        reach = 2 * (high - low)
        first, last = max(floor, low - reach), min(ceiling, high + reach)
        exact = last - first <= _MR_LEVELS and np.array_equal(values, np.rint(values))
        if exact:
            first, last = float(np.ceil(first)), float(np.floor(last))
        # More levels would only make the file larger.
        slope = 1.0 if exact else max(last - first, 1e-6) / _MR_LEVELS
        start = first
        ends = [0 if floor < first else None, round((last - first) / slope) if ceiling > last else None]
    stored = np.rint((values.clip(first, last) - start) / slope).astype(np.int16)
    return {
        "data": packed(stored),
        "slope": slope,
        "intercept": start,
        "unit": "HU" if modality == "CT" else "",
        "window": [low, high],
        "exact": exact,
        "ends": ends,
    }
