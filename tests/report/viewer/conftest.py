"""A small scan with a liver and a gallbladder, a prediction of it, and the page that shows both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from duomod.report.viewer.page import view_page
from duomod.report.viewer.settings import ViewSettings

SHAPE = (30, 40, 50)  # z, y, x
SPACING = (1.0, 1.5, 2.0)  # x, y, z in mm

Save = Callable[..., Path]


def saved(array: np.ndarray, path: Path, orientation: str = "RAS") -> Path:
    """Write an array given in RAS so that the file is stored in another orientation, at the same place in the world."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    image.SetOrigin((24.0, 30.0, -12.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.DICOMOrient(image, orientation), str(path))
    return path


@pytest.fixture(scope="session", name="saved")
def saved_fixture() -> Save:
    """Writes an array; see :func:`saved`."""
    return saved


@pytest.fixture(scope="session")
def scan() -> np.ndarray:
    values = np.full(SHAPE, -1000, np.int16)
    values[2:28, 4:36, 5:45] = 40
    return values


@pytest.fixture(scope="session")
def truth() -> np.ndarray:
    """A liver on the patient's right, and a gallbladder at its front."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[8:20, 10:24, 28:42] = 1
    labels[10:14, 25:30, 30:34] = 2
    return labels


@pytest.fixture(scope="session")
def files(scan: np.ndarray, truth: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    prediction = np.roll(truth, 2, axis=2)
    prediction[prediction == 2] = 0
    return {
        "scan": saved(scan, folder / "scan.nii.gz", "LPS"),
        "truth": saved(truth, folder / "truth.nii.gz", "LPS"),
        "prediction": saved(prediction, folder / "prediction.nii.gz", "LPS"),
    }


@pytest.fixture(scope="session")
def page_folder(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("view") / "page"
    description = folder.parent / "toy.yaml"
    description.write_text("name: toy\nclasses: [background, liver, gallbladder]\nmodality: CT\n")
    given = {"case": files["scan"], "pred": (files["prediction"],), "gt": files["truth"], "dataset": str(description)}
    view_page(folder, ViewSettings(**given))
    return folder
