"""Scans, the same preprocessed, and a checkpoint, made once for each file of tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from toy_model import (
    CASES,
    SPEC,
    info,
    write_scan,
)

from duomod.preprocessing.preprocess import run_preprocess
from duomod.preprocessing.settings import PreprocessSettings
from duomod.training.build import build_method
from duomod.training.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    for seed, name in enumerate(CASES):
        write_scan(folder / "imagesTr" / f"{name}_0000.nii.gz", seed, oblique=seed != 1)
    return folder


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("spec") / "toy.yaml"
    path.write_text(json.dumps(SPEC.model_dump(mode="json")), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def preprocessed(raw: Path, description: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    full = tmp_path_factory.mktemp("full")
    for name in CASES:
        file = f"{name}_0000.nii.gz"
        (full / "imagesTr").mkdir(exist_ok=True)
        (full / "labelsTr").mkdir(exist_ok=True)
        shutil.copy(raw / "imagesTr" / file, full / "imagesTr")
        scan = nibabel.load(raw / "imagesTr" / file)
        label = (np.asarray(scan.dataobj) > -25).astype(np.uint8) + (np.asarray(scan.dataobj) > 175)
        nibabel.save(nibabel.Nifti1Image(label.astype(np.uint8), scan.affine), full / "labelsTr" / f"{name}.nii.gz")
    return run_preprocess(
        PreprocessSettings(data_path=full, output_path=full.with_name(f"{full.name}_out"), dataset=description)
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    method = build_method(info())
    for network in method.published_modules().values():
        # Random weights, but no class that wins everywhere.
        head = network.get_submodule("out_conv")
        torch.nn.init.zeros_(head.bias)
        head.weight.data.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0], [0.3, 0.3]])[..., None, None, None])
    path = tmp_path_factory.mktemp("model") / "best_model.pth"
    save_checkpoint(path, method, info())
    return path
