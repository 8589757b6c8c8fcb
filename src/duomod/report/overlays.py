"""Pictures of the worst cases: scan, truth, prediction and error on the slice where most is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

from duomod.datasets.labels import Labels
from duomod.datasets.scan import to_array
from duomod.report.assets.palette import FALSE_NEGATIVE, FALSE_POSITIVE, organ_colour
from duomod.report.viewer.grey import screen_values, window_of
from duomod.workspace import atomic_path

#: Pixels of a panel's longer side.
PANEL = 300
#: Pixels between panels.
GAP = 8

Picture = NDArray[np.uint8]


def worst_slice(truth: Labels, prediction: Labels, axis: int) -> int:
    """Index along ``axis`` with the most wrong voxels; without any, the one with the most organ; else the middle."""
    others = tuple(a for a in range(3) if a != axis)
    for wanted in (truth != prediction, truth > 0):
        counts = wanted.sum(axis=others)
        if counts.max() > 0:
            return int(counts.argmax())
    return int(truth.shape[axis]) // 2


def write_overlay(
    target: Path, image: sitk.Image, truth: Labels, prediction: Labels, *, modality: str
) -> tuple[str, ...]:
    """Draw axial and coronal slices, each as scan, truth, prediction and error, and write them as one PNG.

    Slices are shown as radiologists do: the patient's left on the right of the picture, front or top upwards. In the
    error panel missed voxels are hatched, voxels too many are filled, a wrong organ is both.

    Args:
        target: PNG.
        image: Scan in RAS.
        truth: (D, H, W), same grid.
        prediction: (D, H, W), same grid.
        modality: ``CT`` (HU) or another.

    Returns:
        What the rows show, from top to bottom.
    """
    x, y, z = image.GetSpacing()
    grey = _windowed(screen_values(to_array(image)), modality)
    planes = [(0, "axial", (y, x)), (1, "coronal", (z, x))]
    cuts, captions = [], []
    for axis, name, _ in planes:
        index = worst_slice(truth, prediction, axis)
        cuts.append([_oriented(np.take(volume, index, axis=axis)) for volume in (grey, truth, prediction)])
        captions.append(f"{name} slice {index + 1} of {truth.shape[axis]}")
    # One scale for both planes, and cells as wide as the wider one: the panels stand in columns.
    longest = max(
        max(cut[0].shape[0] * s[0], cut[0].shape[1] * s[1]) for cut, (_, _, s) in zip(cuts, planes, strict=True)
    )
    rows = [_panels(cut, s, PANEL / longest) for cut, (_, _, s) in zip(cuts, planes, strict=True)]
    width = max(panel.shape[1] for row in rows for panel in row)
    picture = np.concatenate([np.concatenate([_centred(panel, width) for panel in row], axis=1) for row in rows])
    with atomic_path(target) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG", optimize=True)
    return tuple(captions)


def _centred(panel: Picture, width: int) -> Picture:
    """Put a panel into the middle of a cell, with a gap around it."""
    free = width - panel.shape[1] + GAP
    return np.pad(panel, ((GAP // 2, GAP // 2), (free // 2, free - free // 2), (0, 0)))


def _windowed(volume: NDArray[np.float32], modality: str) -> Picture:
    low, high = window_of(volume, modality)
    grey: Picture = ((volume - low) / (high - low) * 255).clip(0, 255).astype(np.uint8)
    return grey


def _oriented(cut: NDArray[np.uint8]) -> Picture:
    """RAS indices grow to the right, front and top; pictures grow to the left side of the patient and downwards.

    In RAS the first column is the patient's left: turned round, so that left is on the picture's right.
    """
    return cut[::-1, ::-1]


def _panels(cut: Sequence[Picture], spacing: tuple[float, float], scale: float) -> list[Picture]:
    """Scan, truth, prediction and error of one slice; ``scale`` in pixels per mm."""
    rows, columns = cut[0].shape
    size = (max(1, round(columns * spacing[1] * scale)), max(1, round(rows * spacing[0] * scale)))
    methods = (Image.Resampling.BILINEAR, Image.Resampling.NEAREST, Image.Resampling.NEAREST)
    grey, truth, prediction = (
        np.asarray(Image.fromarray(np.ascontiguousarray(part)).resize(size, method))
        for part, method in zip(cut, methods, strict=True)
    )
    plain = np.repeat(grey[..., None], 3, axis=2)
    return [plain, _coloured(plain, truth), _coloured(plain, prediction), _errors(plain, truth, prediction)]


def _blend(picture: Picture, where: NDArray[np.bool_], colour: Sequence[int], share: float) -> None:
    picture[where] = ((1 - share) * picture[where] + share * np.asarray(colour)).astype(np.uint8)


def _edges(labels: Labels) -> NDArray[np.bool_]:
    """Pixels of an organ with another label to the left, right, above or below."""
    padded = np.pad(labels, 1)
    inner = padded[1:-1, 1:-1]
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    different = np.zeros(labels.shape, bool)
    for neighbour in neighbours:
        different |= neighbour != inner
    return different & (labels > 0)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _coloured(plain: Picture, labels: Labels) -> Picture:
    picture = plain.copy()
    for label in np.unique(labels[labels > 0]):
        _blend(picture, labels == label, _rgb(organ_colour(int(label))), 0.45)
    edges = _edges(labels)
    for label in np.unique(labels[edges]):
        picture[edges & (labels == label)] = _rgb(organ_colour(int(label)))
    return picture


def _errors(plain: Picture, truth: Labels, prediction: Labels) -> Picture:
    picture = plain.copy()
    wrong = truth != prediction
    missed, surplus = wrong & (truth > 0), wrong & (prediction > 0)
    _blend(picture, surplus, _rgb(FALSE_POSITIVE), 0.6)
    rows, columns = np.indices(truth.shape)
    hatch = (rows + columns) % 5 < 2
    _blend(picture, missed & hatch, _rgb(FALSE_NEGATIVE), 0.9)
    picture[_edges(missed.astype(np.uint8))] = _rgb(FALSE_NEGATIVE)
    return picture
