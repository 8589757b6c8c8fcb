"""Small raw data sets for the tests, made by formula."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from duomod.preprocessing.preprocess import run_preprocess
from duomod.preprocessing.settings import PreprocessSettings
from duomod.settings import checked


def preprocess(data_path: Path, output_path: Path, **options: object) -> Path:
    return run_preprocess(
        checked(PreprocessSettings, {"data_path": data_path, "output_path": output_path, "workers": 1, **options})
    )


UNIT = (1.0, 1.0, 1.0)


def scan(array: np.ndarray, orientation: str = "RAS", spacing: Iterable[float] = UNIT) -> sitk.Image:
    """An image whose array is given in RAS order, but stored on disk in another orientation."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(tuple(spacing))
    image.SetOrigin((12.0, -7.0, 30.0))
    image.SetDirection(sitk.DICOMOrientImageFilter().GetDirectionCosinesFromOrientation("RAS"))
    return sitk.DICOMOrient(image, orientation)


def write(path: Path, image: sitk.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), True)
    return path


def body(shape: tuple[int, int, int] = (8, 9, 10), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """HU with noise and a label with classes 1 and 2, both without any symmetry."""
    rng = np.random.default_rng(seed)
    hu = rng.integers(-100, 100, shape).astype(np.int16)
    hu[0] = -1000
    label = np.zeros(shape, dtype=np.uint8)
    label[1:4, 2:5, 1:7] = 1
    label[5, 6:8, 7:] = 2
    return hu, label


def raw_set(folder: Path, cases: int = 3, orientations: tuple[str, ...] = ("RAS", "LPS", "PIR")) -> Path:
    for index in range(cases):
        hu, label = body(seed=index)
        orientation = orientations[index % len(orientations)]
        write(folder / "imagesTr" / f"case_{index}.nii.gz", scan(hu, orientation))
        write(folder / "labelsTr" / f"case_{index}.nii.gz", scan(label, orientation))
    labels = {"labels": {"0": "background", "1": "large", "2": "small"}, "modality": {"0": "CT"}}
    (folder / "dataset.json").write_text(json.dumps(labels), encoding="utf-8")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """All results; the manifest and the markers hold times and are left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "cases" and "manifest" not in path.name
    }
