"""A scan and label maps of it, read for the screen: all turned to RAS, and on one grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from duomod.console import say
from duomod.datasets.dicom.find import find_series
from duomod.datasets.dicom.pixels import read_series
from duomod.datasets.grid import Geometry
from duomod.datasets.labels import Labels, read_labels
from duomod.datasets.scan import read_image, to_array
from duomod.datasets.spec import Modality
from duomod.errors import InputError
from duomod.preprocessing.geometry import canonical


@dataclass(frozen=True)
class Overlay:
    """A predicted label map and what to call it, e.g. ``duomodnet, seed 0``."""

    name: str
    path: Path


@dataclass(frozen=True)
class CaseSource:
    """What a case is shown from.

    Attributes:
        case: Its id.
        scan: A NIfTI file or a DICOM folder.
        truth: True label map, or None.
        predictions: Predicted label maps.
        classes: Class names, background first.
        modality: CT values are Hounsfield units; MR values get a window of their own.
        label_merges: Raw label value -> class index, applied when label maps are read.
    """

    case: str
    scan: Path
    truth: Path | None
    predictions: Sequence[Overlay]
    classes: Sequence[str]
    modality: Modality
    label_merges: Mapping[int, int] = field(default_factory=dict)


def read_scan(path: Path) -> sitk.Image:
    """Read a NIfTI file or the DICOM series in a folder.

    Raises:
        InputError: it cannot be read, or the folder holds no series or several.
    """
    if not path.is_dir():
        return read_image(path)
    found = find_series(path)
    if found.problems:
        raise InputError(found.problems)
    if len(found.series) != 1:
        raise InputError(f"{path}: holds {len(found.series)} DICOM series; give the folder of one, or a NIfTI file")
    for sentence in (*found.left_out, *found.series[0].doubts):
        say(sentence)
    return read_series(found.series[0])


def label_array(image: sitk.Image) -> Labels:
    """Return a label map's classes as an array (D, H, W)."""
    return to_array(image).astype(np.uint8, copy=False)


def read_case(source: CaseSource) -> tuple[sitk.Image, list[sitk.Image]]:
    """Read a case's files and turn all to RAS.

    Returns:
        The scan, and the label maps: the truth, if there is one, then the predictions.

    Raises:
        InputError: lists every file that cannot be read, has unknown labels or does not lie on the scan's grid.
    """
    problems: list[str] = []

    def attempt(read: Callable[[Path], sitk.Image], path: Path) -> sitk.Image | None:
        try:
            return canonical(read(path))
        except InputError as error:
            problems.extend(error.problems)
            return None

    def labels(path: Path) -> sitk.Image:
        array, geometry = read_labels(path, len(source.classes), source.label_merges)
        return geometry.image_of(array)

    scan = attempt(read_scan, source.scan)
    paths = [*([source.truth] if source.truth is not None else []), *(one.path for one in source.predictions)]
    maps = [attempt(labels, path) for path in paths]
    if scan is not None:
        grid = Geometry.of(scan)
        for path, one in zip(paths, maps, strict=True):
            if one is None:
                continue
            differences = Geometry.of(one).differences(grid)
            if not differences:
                # The same up to rounding; made exactly the same, so that all arrays are cut and resampled alike.
                grid.apply_to(one)
            else:
                problems.append(
                    f"{path}: lies on another grid than the scan {source.scan}: {'; '.join(differences)}"
                    " (in right-front-top order); give the label map of this scan, on its own grid"
                )
    if problems or scan is None:
        raise InputError(problems)
    return scan, [one for one in maps if one is not None]
