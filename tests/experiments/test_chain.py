"""The chain through the original project's commands, as a user types them, on the tiny phantom."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
SHORT = ["--preset", "compact", "--patch", "16,16,16", "--steps_per_epoch", "3", "--set", "network.levels=3"]


def run(*arguments: str | Path, cwd: Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(a) for a in arguments], cwd=cwd, capture_output=True, text=True, env={**ENVIRONMENT, **environment}
    )
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def script(name: str, *arguments: str | Path, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, ROOT / name, *arguments, cwd=cwd, code=code)


def predict_command(seed: str) -> list[str]:
    run_folder = f"./logs/amos/duomodnet/{seed}"
    text = (
        "--npy_path ./Dataset/AMOS22_preprocessed/imagesVa --original_nii_path ./Dataset/AMOS22/imagesVa"
        f" --output_path {run_folder}/predictions --model_path {run_folder}/ckpts/best_model.pth"
        " --exp duomodnet --task phantom_tiny --overlap 0.5 --gpu"
    )
    return [*text.split(), ""]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which every command up to the prediction of two seeds has been run."""
    folder = tmp_path_factory.mktemp("chain")
    duomod = [sys.executable, "-m", "duomod"]
    run(*duomod, "phantom", "Dataset/AMOS22", "--cases", "8", "--preset", "tiny", cwd=folder)
    data = ["--data_path", "./Dataset/AMOS22", "--output_path", "./Dataset/AMOS22_preprocessed", "--num_classes", "8"]
    done = script("preprocess.py", *data, cwd=folder)
    assert done.stdout.splitlines()[-1] == "Dataset/AMOS22_preprocessed"
    for seed in ("0", "1"):
        done = script(
            "train.py",
            *"--model duomodnet --data_path ./Dataset/AMOS22_preprocessed --gpu 0".split(),
            *"--num_classes 8 --max_epochs 2".split(),
            *f"--batch_size 2 --output_dir ./logs/amos/duomodnet/seed_{seed} --seed {seed} --labeled_count 2".split(),
            *SHORT,
            cwd=folder,
        )
        assert "running on the CPU" in done.stderr
        script("test.py", *predict_command(f"seed_{seed}"), cwd=folder)
    return folder


def test_predictions_lie_on_the_scans_own_grids(work: Path) -> None:
    predictions = sorted((work / "logs/amos/duomodnet/seed_0/predictions").glob("*.nii.gz"))
    scans = sorted((work / "Dataset/AMOS22/imagesVa").glob("*.nii.gz"))
    assert [p.name for p in predictions] == [s.name for s in scans]
    for predicted, scan in zip(map(sitk.ReadImage, predictions), map(sitk.ReadImage, scans), strict=True):
        assert predicted.GetPixelID() == sitk.sitkUInt8
        assert predicted.GetSize() == scan.GetSize()
        assert predicted.GetSpacing() == scan.GetSpacing()
        assert predicted.GetOrigin() == scan.GetOrigin()
        assert predicted.GetDirection() == scan.GetDirection()


def test_predicting_the_scan_itself_gives_the_same_labels(work: Path) -> None:
    arguments = "--input Dataset/AMOS22/imagesVa --output direct --gpu".split()
    model = "logs/amos/duomodnet/seed_0/ckpts/best_model.pth"
    run(sys.executable, "-m", "duomod", "predict", *arguments, "", "--model", model, cwd=work)
    for predicted in (work / "direct").glob("*.nii.gz"):
        other = sitk.ReadImage(work / "logs/amos/duomodnet/seed_0/predictions" / predicted.name)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(predicted)), sitk.GetArrayFromImage(other))


def test_evaluation_and_aggregation(work: Path) -> None:
    for seed in ("seed_0", "seed_1"):
        base = f"./logs/amos/duomodnet/{seed}"
        script(
            "eval_amos.py",
            *f"--pred_path {base}/predictions --gt_path ./Dataset/AMOS22/labelsVa --num_classes 8".split(),
            *f"--output_csv {base}/result.csv".split(),
            cwd=work,
        )
        table = pd.read_csv(work / base / "result.csv")
        expected = ["Filename", *(f"Dice_Class{c}" for c in range(1, 8)), *(f"ASD_Class{c}" for c in range(1, 8))]
        assert list(table.columns) == expected
        assert len(table) == 2
    done = script(
        "aggregate_results.py",
        *"--method_base_dir ./logs/amos/duomodnet --seed_pattern seed_* --results_filename result".split(),
        *"--aggregated_csv_output ./logs/amos/duomodnet/duomodnet_aggregated_metrics.csv".split(),
        *"--summary_output ./logs/amos/duomodnet/duomodnet_summary_results.txt".split(),
        cwd=work,
    )
    for line in (
        "📊 Aggregated Summary Results (Mean ± Std from 2 seeds)",
        "Class                  |           Dice (%) |            ASD (mm)",
        "Avg Tail Dice",
    ):
        assert line in done.stdout
    assert done.stdout.splitlines()[-1].endswith("duomodnet_summary_results.txt")
    averaged = pd.read_csv(work / "logs/amos/duomodnet/duomodnet_aggregated_metrics.csv")
    seeds = [pd.read_csv(work / f"logs/amos/duomodnet/seed_{s}/result.csv") for s in (0, 1)]
    mean = (seeds[0]["Dice_Class5"] + seeds[1]["Dice_Class5"]) / 2
    np.testing.assert_allclose(averaged["Dice_Class5"], mean, atol=1e-9)


def test_the_pipeline_script_reports_a_missing_seed_and_does_the_rest(work: Path) -> None:
    switches = {
        "TASK": "phantom_tiny",
        "GT_PATH": "./Dataset/AMOS22/labelsVa",
        "NUM_CLASSES": "8",
        "GPU_ID": "",
    }
    done = run("bash", ROOT / "run_unified_pipeline.sh", cwd=work, code=1, SEEDS="0 1 7", **switches)
    assert "seed_7" in done.stderr
    assert "Avg Foreground Dice" in done.stdout
    done = run("bash", ROOT / "run_unified_pipeline.sh", cwd=work, SEEDS="0 1", RUN_INFERENCE="false", **switches)
    assert done.stdout.splitlines()[-1].endswith("duomodnet_summary_results.txt")


DATA = "Dataset/AMOS22_preprocessed"
IN_THE_WAY = f"{DATA}/dataset.json/x"  # a file where a folder would have to be
BAD = [
    (
        ["train", "--model", "cps", "--data_path", DATA, "--output_dir", IN_THE_WAY, "--labeled_count", "2"],
        "in the way",
    ),
    (["preprocess", "--data_path", "Dataset/AMOS22", "--output_path", IN_THE_WAY], "in the way"),
    (["predict", "--model", "no.pth", "--input", "Dataset/AMOS22/imagesVa", "--output", "x", "--gpu", ""], "no.pth"),
    (["train", "--model", "duomodn", "--data_path", "Dataset/AMOS22_preprocessed", "--output_dir", "x"], "duomodnet"),
    (["train", "--model", "cps", "--data_path", "nowhere", "--output_dir", "x"], "nowhere"),
    (["preprocess", "--data_path", "nowhere", "--output_path", "x"], "nowhere"),
    (["preprocess", "--data_path", "Dataset/AMOS22", "--output_path", "x", "--num_classes", "16"], "16"),
    (["evaluate", "nowhere", "Dataset/AMOS22/labelsVa"], "nowhere"),
    (["aggregate", "--method_base_dir", "nowhere"], "nowhere"),
    (["pipeline", "nowhere.yaml"], "nowhere.yaml"),
    (["train", "--model", "cps", "--data_path", "a", "--output_dir", "x", "--patch", "1,2"], "--patch"),
    (["train", "--model", "cps", "--data_path", "a", "--output_dir", "x", "--set", "optim.sped=1"], "optim.sped"),
]


@pytest.mark.parametrize(("arguments", "named"), BAD, ids=[" ".join(a[:3]) for a, _ in BAD])
def test_wrong_use_is_one_clear_message_and_exit_code_2(work: Path, arguments: list[str], named: str) -> None:
    before = sorted(work.rglob("*"))
    done = run(sys.executable, "-m", "duomod", *arguments, cwd=work, code=2)
    assert named in done.stderr
    assert done.stderr.count("error:") == 1
    assert sorted(work.rglob("*")) == before


def test_a_checkpoint_for_another_number_of_classes_is_refused(work: Path) -> None:
    done = script("test.py", *predict_command("seed_0"), "--num_classes", "16", cwd=work, code=2)
    assert "best_model.pth" in done.stderr
    assert "16" in done.stderr


def test_an_output_path_that_cannot_be_a_folder_is_explained(work: Path) -> None:
    (work / "file").write_text("in the way")
    done = run(
        *(sys.executable, "-m", "duomod", "phantom", "file/out", "--cases", "1", "--preset", "tiny"), cwd=work, code=2
    )
    assert "file" in done.stderr
