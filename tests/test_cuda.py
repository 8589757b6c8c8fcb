"""Training and prediction on a GPU; skipped where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import yaml
from command_line import duomod

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cuda")
    duomod("phantom", folder / "raw", "--cases", "8", "--preset", "tiny")
    duomod("preprocess", "--data_path", folder / "raw", "--output_path", folder / "data", "--workers", "1")
    return folder


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("model", ["supervised", "duomodnet"])
def test_a_gpu_trains_and_predicts(data: Path, tmp_path: Path, model: str, precision: str) -> None:
    run = tmp_path / "run"
    training = ["train", "--model", model, "--data_path", data / "data", "--output_dir", run, "--labeled_count", "2"]
    size = f"--preset compact --steps_per_epoch 4 --patch 16,16,16 --precision {precision} --gpu 0".split()
    duomod(*training, *size, "--max_epochs", "2")
    made = json.loads((run / "train_manifest.json").read_text())
    assert made["device"] == "cuda:0"
    assert made["peak_memory_mib"] > 0
    assert yaml.safe_load((run / "config.yaml").read_text())["train"]["precision"] == precision
    losses = [json.loads(line).get("loss") for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(loss) for loss in losses if loss is not None)
    maps = {}
    for gpu in ("0", ""):
        target = tmp_path / f"on_{gpu or 'cpu'}"
        scans = ["--input", data / "raw" / "imagesVa", "--model", run / "ckpts" / "best_model.pth"]
        duomod("predict", *scans, "--output", target, "--gpu", gpu, "--precision", "fp32")
        maps[gpu] = [sitk.GetArrayFromImage(sitk.ReadImage(path)) for path in sorted(target.glob("*.nii.gz"))]
    for on_gpu, on_cpu in zip(maps["0"], maps[""], strict=True):
        assert np.mean(on_gpu != on_cpu) < 0.01
