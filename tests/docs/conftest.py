"""What the pages' commands find on a reader's disk: scans with AMOS's labels, trained models, predictions, results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from command_line import duomod

ORGANS = 15
SPACING = (1.5, 1.5, 2.0)
#: The smallest training that leaves all files; what the pages' own commands are cut down to as well.
TINY_TRAINING = (
    "--max_epochs 1 --steps_per_epoch 1 --patch 8,16,16 --precision fp32"
    " --set network.filters=2 --set network.levels=2 --set network.norm=instance"
)


def write_scans(folder: Path, cases: int, role: str, first: int) -> None:
    """Scans of 12 x 40 x 40 voxels with a block of 4 x 8 x 8 for each of AMOS's organs."""
    for number in range(first, first + cases):
        rng = np.random.default_rng(number)
        image = rng.normal(0, 10, (12, 40, 40)).astype(np.int16)
        label = np.zeros(image.shape, dtype=np.uint8)
        for organ in range(1, ORGANS + 1):
            layer, place = divmod(organ - 1, 8)
            z, y, x = 1 + 5 * layer, 2 + 18 * (place // 4) + number % 3, 2 + 9 * (place % 4)
            label[z : z + 4, y : y + 8, x : x + 8] = organ
            image[label == organ] += 12 * organ
        for kind, array in (("images", image), ("labels", label)):
            target = folder / f"{kind}{role}" / f"amos_{number:04d}.nii.gz"
            target.parent.mkdir(parents=True, exist_ok=True)
            written = sitk.GetImageFromArray(array)
            written.SetSpacing(SPACING)
            sitk.WriteImage(written, target)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, write_dicom: Any) -> Path:
    """``raw``, ``preprocessed``, ``dicom`` and ``runs/<method>`` of three methods with three seeds each, evaluated."""
    folder = tmp_path_factory.mktemp("lab")
    write_scans(folder / "raw", 8, "Tr", 1)
    write_scans(folder / "raw", 3, "Va", 20)
    write_dicom(sitk.ReadImage(folder / "raw/imagesVa/amos_0020.nii.gz"), folder / "dicom")
    names = ("spleen,right kidney,left kidney,gallbladder,esophagus,liver,stomach,aorta,postcava,pancreas,"
             "right adrenal gland,left adrenal gland,duodenum,bladder,prostate/uterus").split(",")  # fmt: skip
    labels = {"0": "background", **{str(i + 1): name for i, name in enumerate(names)}}
    (folder / "raw" / "dataset.json").write_text(json.dumps({"labels": labels, "modality": {"0": "CT"}}))
    raw, data = folder / "raw", folder / "preprocessed"
    duomod("preprocess", "--data_path", raw, "--output_path", data, "--dataset", "amos22", "--workers", "1")
    for method in ("supervised", "cps", "duomodnet"):
        for seed in ("0", "1", "2"):
            run = folder / "runs" / method / f"seed_{seed}"
            training = ["--labeled_count", "3", "--seed", seed, "--gpu", "", *TINY_TRAINING.split()]
            duomod("train", "--model", method, "--data_path", data, "--output_dir", run, *training)
            model, predictions = run / "ckpts" / "best_model.pth", run / "predictions"
            scans = ["--npy_path", data / "imagesVa", "--original_nii_path", raw / "imagesVa"]
            duomod("predict", "--model", model, *scans, "--output", predictions, "--gpu", "")
            truth = ["--gt_path", raw / "labelsVa", "--dataset", "amos22", "--workers", "1"]
            duomod("evaluate", "--pred_path", predictions, *truth, "--output_csv", run / "result.csv")
        duomod("aggregate", "--method_base_dir", folder / "runs" / method, "--dataset", "amos22")
    return folder
