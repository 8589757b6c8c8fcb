"""Commands from beginning to end, through the real command line, on scans that take seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml
from command_line import duomod

from duomod.cli import main

SMALL = {
    "max_epochs": 1,
    "steps_per_epoch": 2,
    "patch": [16, 16, 16],
    "precision": "fp32",
    "network": {"filters": 4, "levels": 3},
}
#: The same as flags of ``duomod train``.
FLAGS = "--preset compact --max_epochs 1 --steps_per_epoch 2 --patch 16,16,16 --precision fp32"
FLAGS += " --set network.filters=4 --set network.levels=3 --gpu"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one experiment file has done everything from the raw scans to the summaries."""
    folder = tmp_path_factory.mktemp("commands")
    duomod("phantom", folder / "raw", "--cases", "8", "--preset", "tiny")
    methods = [
        {
            "name": name,
            "log_root": str(folder / "logs" / name),
            "nii_path": str(folder / "raw" / "imagesVa"),
            "task": "phantom_tiny",
        }
        for name in ("supervised", "upper_bound")
    ]
    methods[0] |= {"settings": {"class_weights": "dhc"}, "train_settings": {"optim": {"base_lr": 0.015625}}}
    methods[1]["npy_path"] = str(folder / "data" / "imagesVa")
    experiment = {
        "gt_path": str(folder / "raw" / "labelsVa"),
        "gpu": "",
        "seeds": [0, 1],
        "jobs": 2,
        "overlap": 0.375,
        "metrics": ["dice", "iou"],
        "stages": {"preprocessing": True, "training": True},
        "preprocessing": {"data_path": str(folder / "raw"), "output_path": str(folder / "data")},
        "training": {
            "data_path": str(folder / "data"),
            "preset": "compact",
            "labeled_count": 2,
            "settings": SMALL,
        },
        "methods": methods,
    }
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment), encoding="utf-8")
    duomod("pipeline", folder / "experiment.yaml")
    return folder


class TestPipeline:
    def test_it_preprocesses_trains_predicts_evaluates_and_aggregates(self, work: Path) -> None:
        assert (work / "data" / "dataset.json").is_file()
        for name in ("supervised", "upper_bound"):
            for seed in (0, 1):
                run = work / "logs" / name / f"seed_{seed}"
                assert (run / "train_manifest.json").is_file()
                assert len(list((run / "predictions").glob("*.nii.gz"))) == 2
                assert len(pd.read_csv(run / "result.csv")) == 2
            assert "2 seeds" in (work / "logs" / name / f"{name}_summary_results.txt").read_text()

    def test_trainings_at_the_same_time_get_the_settings_of_the_file(self, work: Path) -> None:
        for seed in (0, 1):
            stored = yaml.safe_load((work / "logs/supervised" / f"seed_{seed}" / "config.yaml").read_text())
            assert (stored["seed"], stored["preset"], stored["train"]["max_epochs"]) == (seed, "compact", 1)
            assert stored["train"]["network"]["filters"] == 4
            assert len(stored["split"]["labelled"]) == 2

    def test_every_method_gets_its_own_settings(self, work: Path) -> None:
        def stored(method: str) -> dict[str, Any]:
            return yaml.safe_load((work / "logs" / method / "seed_0" / "config.yaml").read_text())

        assert stored("supervised")["method"]["class_weights"] == "dhc"
        assert stored("supervised")["train"]["optim"]["base_lr"] == 0.015625
        assert stored("upper_bound")["method"]["class_weights"] == "none"
        assert stored("upper_bound")["train"]["optim"]["base_lr"] == 0.02
        assert stored("upper_bound")["train"]["max_epochs"] == stored("supervised")["train"]["max_epochs"] == 1

    def test_prediction_and_evaluation_get_the_file_s_settings(self, work: Path) -> None:
        for name in ("supervised", "upper_bound"):
            run = work / "logs" / name / "seed_1"
            made = json.loads((run / "predictions" / "prediction.json").read_text())
            assert made["settings"]["overlap"] == 0.375
            assert "IoU_Class1" in pd.read_csv(run / "result.csv").columns

    def test_the_upper_bound_is_trained_with_all_labels(self, work: Path) -> None:
        split = yaml.safe_load((work / "logs/upper_bound/seed_0/config.yaml").read_text())["split"]
        assert len(split["labelled"]) > 2
        assert split["unlabelled"] == 0

    def test_run_again_it_changes_nothing(self, work: Path) -> None:
        files = {path: path.stat().st_mtime_ns for path in work.glob("logs/*/seed_*/**/*") if path.suffix == ".pth"}
        duomod("pipeline", work / "experiment.yaml")
        assert {path: path.stat().st_mtime_ns for path in files} == files


class TestAfterwards:
    def test_compare_says_who_is_better(self, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        tables = [work / "logs" / name / f"{name}_aggregated_metrics.csv" for name in ("supervised", "upper_bound")]
        duomod("compare", *tables, "--baseline", "supervised", "--output", tmp_path / "out", "--resamples", "200")
        sentences = (tmp_path / "out" / "comparison.txt").read_text()
        assert "upper_bound" in sentences
        assert capsys.readouterr().out.strip().splitlines()[-1].startswith(str(tmp_path / "out"))

    def test_report_is_a_page(self, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        runs = [work / "logs" / name for name in ("supervised", "upper_bound")]
        duomod("report", *runs, "--output", tmp_path / "report", "--no_viewer", "--worst", "1")
        page = Path(capsys.readouterr().out.strip().splitlines()[-1])
        assert page.parent == tmp_path / "report"
        assert "upper_bound" in page.read_text(encoding="utf-8")

    def test_a_dicom_series_is_predicted(self, work: Path, tmp_path: Path, write_dicom: Any) -> None:
        scan = sitk.ReadImage(next((work / "raw" / "imagesVa").glob("*.nii.gz")))
        write_dicom(scan, tmp_path / "series")
        model = work / "logs/supervised/seed_0/ckpts/best_model.pth"
        duomod("predict", "--input", tmp_path / "series", "--model", model, "--output", tmp_path / "masks", "--gpu", "")
        (written,) = (tmp_path / "masks").glob("*.nii.gz")
        predicted = sitk.ReadImage(written)
        assert predicted.GetSize() == scan.GetSize()
        np.testing.assert_allclose(predicted.GetSpacing(), scan.GetSpacing(), atol=1e-5)
        np.testing.assert_allclose(predicted.GetOrigin(), scan.GetOrigin(), atol=1e-4)


def test_the_upper_bound_is_trained_from_the_command_line(work: Path, tmp_path: Path) -> None:
    arguments = f"train --model upper_bound --labeled_count 2 {FLAGS}".split()
    duomod(*arguments, "", "--data_path", work / "data", "--output_dir", tmp_path / "run")
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert len(stored["split"]["labelled"]) > 2


def test_the_demo_runs_the_whole_chain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = "--max_epochs 1 --steps_per_epoch 1 --cases 8".split()
    duomod("demo", "--output", tmp_path / "demo", *small)
    table = (tmp_path / "demo" / "comparison.txt").read_text()
    for name in ("supervised", "cps", "duomodnet"):
        assert name in table
        assert (tmp_path / "demo" / "logs" / name / f"{name}_summary_results.txt").is_file()
        for seed in (0, 1):
            assert len(list((tmp_path / "demo" / "logs" / name / f"seed_{seed}" / "predictions").glob("*.gz"))) == 2
    page = tmp_path / "demo" / "report" / "index.html"
    assert page.is_file()
    assert capsys.readouterr().out.strip().splitlines()[-1] == str(page)


class TestMethods:
    def test_methods_lists_them_all(self, capsys: pytest.CaptureFixture[str]) -> None:
        duomod("methods")
        listed = capsys.readouterr().out
        for name in ("duomodnet", "supervised", "upper_bound", "cps"):
            assert name in listed

    def test_check_method_passes_a_method_of_ours(self, capsys: pytest.CaptureFixture[str]) -> None:
        duomod("check-method", "supervised")
        assert "FAILED" not in capsys.readouterr().out

    def test_check_method_names_the_rules_that_a_file_breaks(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "lazy.py").write_text(LAZY, encoding="utf-8")
        with pytest.raises(SystemExit) as ended:
            main(["check-method", str(tmp_path / "lazy.py")])
        assert ended.value.code == 1
        shown = capsys.readouterr()
        assert "FAILED" in shown.out
        assert "rules failed" in shown.err


#: A method that learns nothing.
LAZY = """
from duomod.methods.supervised import Supervised
from duomod.methods.base import StepOutput


class Lazy(Supervised):
    def forward(self, batch, progress):
        loss = super().forward(batch, progress).loss * 0
        return StepOutput(loss, {})
"""
