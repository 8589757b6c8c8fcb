"""A scan and label maps of it, read for the screen: all turned to RAS, and on one grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from duomod.datasets.dicom.find import find_series
from duomod.datasets.dicom.pixels import read_series
from duomod.datasets.grid import Geometry
from duomod.datasets.labels import Labels, read_labels
from duomod.datasets.scan import doubts, read_image, to_array
from duomod.datasets.spec import Modality
from duomod.errors import InputError
from duomod.preprocessing.geometry import canonical

#: A scan with values below this is taken for CT: air is -1000 HU, and MR values start at 0.
_AIR_HU = -500


@dataclass(frozen=True)
class Overlay:
    """A predicted label map and what to call it, e.g. ``duomodnet, seed 0``."""

    name: str
    path: Path


@dataclass(frozen=True)
class CaseSource:
    """Files that a case is shown from.

    Attributes:
        scan: A scan's file or a DICOM folder.
        truth: True label map, or None.
        predictions: Predicted label maps.
        num_classes: Background included; None: as many as can be stored.
        modality: As recorded or described; None: as the DICOM header or the values say.
        label_merges: Raw label value -> class index, applied when label maps are read.
    """

    scan: Path
    truth: Path | None
    predictions: Sequence[Overlay]
    num_classes: int | None = None
    modality: Modality | None = None
    label_merges: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CaseImages:
    """A case's scan and label maps: in RAS, on one grid.

    Attributes:
        scan: The scan.
        truth: True label map, or None.
        predictions: Name and label map of each prediction, in the order of its source.
        modality: CT values are Hounsfield units; MR values get a window of their own.
        doubts: Sentences about files that can be read, but whose headers leave something open.
    """

    scan: sitk.Image
    truth: sitk.Image | None
    predictions: tuple[tuple[str, sitk.Image], ...]
    modality: Modality
    doubts: tuple[str, ...] = ()

    @property
    def maps(self) -> list[sitk.Image]:
        """All label maps: the truth, if there is one, then the predictions."""
        return [*([self.truth] if self.truth is not None else []), *(labels for _, labels in self.predictions)]


def label_array(image: sitk.Image) -> Labels:
    """Return a label map's classes as an array (D, H, W)."""
    return to_array(image).astype(np.uint8, copy=False)


def read_case(source: CaseSource) -> tuple[CaseImages | None, list[str]]:
    """Read a case's files, each once, and turn all to RAS.

    Returns:
        What could be read, None without the scan; and a sentence about every file that cannot be read, has unknown
        labels or does not lie on the scan's grid, which is left out.
    """
    problems: list[str] = []
    try:
        scan, modality, doubtful = _read_scan(source.scan)
    except InputError as error:
        problems += error.problems
        scan = None

    def labels(path: Path) -> sitk.Image | None:
        try:
            array, geometry = read_labels(path, source.num_classes, source.label_merges)
            found = canonical(geometry.image_of(array))
            return found if scan is None else _on_grid(found, path, scan, source.scan)
        except InputError as error:
            problems.extend(error.problems)
            return None

    truth = labels(source.truth) if source.truth is not None else None
    predictions = [(overlay.name, labels(overlay.path)) for overlay in source.predictions]
    if scan is None:
        return None, problems
    known = tuple((name, one) for name, one in predictions if one is not None)
    modality = source.modality or modality or _seen_modality(scan)
    paths = [*([source.truth] if source.truth is not None else []), *(overlay.path for overlay in source.predictions)]
    doubtful += [sentence for path in paths for sentence in doubts(path)]
    return CaseImages(scan, truth, known, modality, tuple(doubtful)), problems


def _read_scan(path: Path) -> tuple[sitk.Image, Modality | None, list[str]]:
    """Read a scan's file or the DICOM series in a folder; with the modality where its header has one, and doubts.

    Raises:
        InputError: it cannot be read, or the folder holds no series or several.
    """
    if not path.is_dir():
        return canonical(read_image(path)), None, doubts(path)
    found = find_series(path)
    if found.problems:
        raise InputError(found.problems)
    if len(found.series) != 1:
        raise InputError(f"{path}: holds {len(found.series)} DICOM series; give the folder of one, or a NIfTI file")
    (series,) = found.series
    return canonical(read_series(series)), series.modality, [*found.left_out, *series.doubts]


def _seen_modality(scan: sitk.Image) -> Modality:
    return "CT" if to_array(scan).min() < _AIR_HU else "MR"


def _on_grid(labels: sitk.Image, path: Path, scan: sitk.Image, scan_path: Path) -> sitk.Image:
    """A label map exactly on the scan's grid: the same up to rounding, so that all are cut and resampled alike.

    Raises:
        InputError: it lies elsewhere.
    """
    grid = Geometry.of(scan)
    differences = Geometry.of(labels).differences(grid)
    if differences:
        raise InputError(
            f"{path}: lies on another grid than the scan {scan_path}: {'; '.join(differences)}"
            " (in right-front-top order); give the label map of this scan, on its own grid"
        )
    grid.apply_to(labels)
    return labels
