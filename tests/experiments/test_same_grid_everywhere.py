"""One tolerance through the whole chain: what preprocess accepts, evaluate accepts at its end, and the reverse."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from duomod.cli import app
from duomod.config import NetworkConfig
from duomod.datasets.grid import SAME_WITHIN
from duomod.datasets.spec import DatasetSpec
from duomod.errors import InputError
from duomod.training.build import build_method
from duomod.training.checkpoint import save_checkpoint
from duomod.training.model_info import ModelInfo

SHAPE = (20, 24, 16)
SPACING = np.array((1.7, 0.9, 2.5))
SPEC = DatasetSpec(name="toy", classes=("background", "organ"), spacing=(2.0, 2.0, 2.0), patch=(16, 16, 16))


def affine(scale: float = 1.0, turn: float = 0.0, move: float = 0.0) -> np.ndarray:
    """An oblique grid; changed so that the farthest voxel moves by about the given shares of the shortest edge."""
    edge = SPACING.min()
    result = np.eye(4)
    spacing = SPACING + np.array((0, 0, (scale - 1) * edge / (SHAPE[2] - 1)))
    radius = np.hypot(*(SPACING * (np.array(SHAPE) - 1))[1:])
    direction = Rotation.from_euler("xyz", (0.1, 0.2, 0.3)) * Rotation.from_euler("x", turn * edge / radius)
    result[:3, :3] = direction.as_matrix() @ np.diag(spacing)
    result[:3, 3] = (-80.0, 33.3, 7.7 + move * edge)
    return result


def changed(kind: str, share: float) -> np.ndarray:
    return {"origin": affine(move=share), "spacing": affine(1 + share), "direction": affine(turn=share)}[kind]


def save(path: Path, array: np.ndarray, matrix: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, matrix), path)
    return path


def raw_data(folder: Path, label_grid: np.ndarray) -> Path:
    voxels = np.random.default_rng(0).normal(-60, 20, SHAPE)
    label = np.zeros(SHAPE, np.uint8)
    label[5:12, 6:15, 4:10] = 1
    save(folder / "imagesTr" / "a.1.nii.gz", (voxels + 150 * label).astype(np.int16), affine())
    save(folder / "labelsTr" / "a.1.nii.gz", label, label_grid)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    info = ModelInfo(
        method="supervised",
        network=NetworkConfig(filters=2, levels=2, norm="instance"),
        num_classes=2,
        patch=SPEC.patch,
        spec=SPEC,
    )
    path = tmp_path_factory.mktemp("model") / "best_model.pth"
    save_checkpoint(path, build_method(info), info)
    return path


@pytest.fixture
def description(tmp_path: Path) -> str:
    path = tmp_path / "toy.yaml"
    path.write_text(json.dumps(SPEC.model_dump(mode="json")), encoding="utf-8")
    return str(path)


def command(*arguments: object) -> InputError | None:
    """Run a command in this process; returns what it refuses, if anything."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, InputError):
        return result.exception
    assert result.exception is None, result.exception
    return None


def preprocess(raw: Path, description: str) -> InputError | None:
    return command("preprocess", "--data_path", raw, "--output_path", raw.with_name("out"), "--dataset", description)


def evaluate(prediction: Path, raw: Path, description: str) -> InputError | None:
    return command("evaluate", prediction, raw / "labelsTr", "--dataset", description)


@pytest.mark.parametrize("kind", ["origin", "spacing", "direction"])
def test_a_label_within_the_tolerance_goes_all_the_way(
    kind: str, model: Path, description: str, tmp_path: Path
) -> None:
    raw = raw_data(tmp_path / "raw", changed(kind, 0.95 * SAME_WITHIN))
    assert preprocess(raw, description) is None
    common = ("predict", "--model", model, "--gpu", "", "--dataset", description)
    stored = ("--npy_path", tmp_path / "out" / "imagesTr")
    ways = {
        "scans": ("--input", raw / "imagesTr"),
        "stored": stored,
        "both": (*stored, "--original_nii_path", raw / "imagesTr"),
    }
    for name, way in ways.items():
        assert command(*common, *way, "--output", tmp_path / name) is None
        assert (tmp_path / name / "a.1.nii.gz").is_file()
        assert evaluate(tmp_path / name, raw, description) is None


@pytest.mark.parametrize("kind", ["origin", "spacing", "direction"])
def test_a_label_beyond_the_tolerance_is_refused_at_both_ends(
    kind: str, model: Path, description: str, tmp_path: Path
) -> None:
    raw = raw_data(tmp_path / "raw", changed(kind, 1.05 * SAME_WITHIN))
    refused = [preprocess(raw, description)]
    scans = ("--input", raw / "imagesTr", "--output", tmp_path / "predictions")
    assert command("predict", "--model", model, "--gpu", "", "--dataset", description, *scans) is None
    refused.append(evaluate(tmp_path / "predictions", raw, description))
    for error in refused:
        assert error is not None
        (problem,) = error.problems
        assert "not on the grid of" in problem
        assert f"{kind} (" in problem
