"""A small model with weights drawn once, and small scans for it."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from duomod.config import NetworkConfig
from duomod.datasets.grid import Geometry
from duomod.datasets.spec import DatasetSpec
from duomod.errors import InputError
from duomod.inference.predict import run_predict
from duomod.training.model_info import ModelInfo


def predict(**options: object) -> Path:
    return run_predict(**{"gpu": "", **options})


SPEC = DatasetSpec(
    name="toy",
    classes=("background", "soft", "bright"),
    spacing=(1.5, 1.5, 2.0),
    patch=(16, 16, 16),
    image_suffix="_0000",
)

NETWORK = NetworkConfig(filters=2, levels=2, norm="instance")

CASES = ("a_001", "a_002", "a_003")


def info(**changes) -> ModelInfo:
    return ModelInfo(method="supervised", network=NETWORK, num_classes=3, patch=(16, 16, 16), spec=SPEC).model_copy(
        update=changes
    )


def affine_of(seed: int, spacing: tuple[float, float, float], oblique: bool = True) -> np.ndarray:
    affine = np.eye(4)
    turn = Rotation.random(random_state=seed).as_matrix() if oblique else np.eye(3)[[1, 2, 0]] * [[1], [-1], [1]]
    affine[:3, :3] = turn @ np.diag(spacing)
    affine[:3, 3] = (10.0 * seed, -33.3, 7.7)
    return affine


def hu_volume(seed: int, shape: tuple[int, int, int] = (24, 26, 18)) -> np.ndarray:
    """A body with one organ on a side; the HU at which the classes change lie half-way between their own."""
    rng = np.random.default_rng(seed)
    voxels = np.full(shape, -90, np.int16)
    voxels[4:-4, 4:-4, 3:-3] = 40
    voxels[6 : 11 + seed, 12:20, 5:12] = 310
    return voxels + rng.integers(-5, 6, shape).astype(np.int16)


def write_scan(path: Path, seed: int, oblique: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(hu_volume(seed), affine_of(seed, (2.2, 1.9, 3.3), oblique))
    nibabel.save(image, path)
    return path


def raw_file(raw: Path, case: str) -> Path:
    return raw / "imagesTr" / f"{case}_0000.nii.gz"


def assert_nearly_equal(a: Geometry, b: Geometry) -> None:
    assert a.size == b.size
    for name in ("spacing", "origin", "direction"):
        assert np.allclose(getattr(a, name), getattr(b, name), rtol=0, atol=1e-5), name


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def problems_of(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)
