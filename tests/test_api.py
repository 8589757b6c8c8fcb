"""The commands as functions: the page of examples runs, and what comes back is what was written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

import duomod
from duomod.datasets.phantom import write_phantom
from duomod.datasets.phantom.settings import PhantomSettings
from duomod.errors import InputError
from duomod.evaluation.settings import EvaluateSettings

PAGE = Path(__file__).parents[1] / "docs" / "api.md"


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that the page's examples leave, run in order in a folder of their own."""
    folder = tmp_path_factory.mktemp("api")
    write_phantom(PhantomSettings(out=folder / "phantom_raw", cases=8, preset="tiny"))
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, Any] = {"folder": folder}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
        # Tables are read when they are asked for, which is now: the paths are relative.
        for name in ("data", "run", "masks", "scores"):
            names[f"{name}_table"], names[f"{name}_html"] = names[name].table, names[name]._repr_html_()
    return names


class TestResults:
    def test_preprocessing_lists_its_cases(self, examples: dict[str, Any]) -> None:
        table = examples["data_table"]
        assert list(table.columns) == ["case", "role", "labelled", "modality", "shape", "source"]
        assert set(table["role"]) == {"Tr", "Va"}

    def test_training_gives_checkpoints_and_what_was_logged(self, examples: dict[str, Any]) -> None:
        run = examples["run"]
        assert (run.folder, run.last.name) == (Path("runs/cps/seed_0"), "last.pth")
        table = examples["run_table"]
        assert table["step"].is_unique
        assert {"loss", "learning_rate", "val_dice"} <= set(table.columns)

    def test_prediction_leads_from_scans_to_label_maps(self, examples: dict[str, Any]) -> None:
        for row in examples["masks_table"].itertuples():
            labels, scan = (sitk.ReadImage(str(examples["folder"] / path)) for path in (row.labels, row.scan))
            assert labels.GetSize() == scan.GetSize()

    def test_evaluation_has_a_row_a_case_and_organ(self, examples: dict[str, Any]) -> None:
        table, written = examples["scores_table"], pd.read_csv(examples["folder"] / "runs/cps/seed_0/result.csv")
        organs = list(examples["predictor"].classes[1:])
        assert list(table["organ"][: len(organs)]) == organs
        for (case, organ), rows in table.groupby(["case", "organ"]):
            column = f"Dice_Class{organs.index(organ) + 1}"
            assert rows["Dice"].item() == pytest.approx(
                written.loc[written["Filename"] == case, column].item(), nan_ok=True
            )

    def test_a_notebook_shows_paths_and_the_table(self, examples: dict[str, Any]) -> None:
        assert "result.csv" in examples["scores_html"]
        assert "<table" in examples["scores_html"]


def test_the_three_kinds_of_scan_give_the_same_labels(examples: dict[str, Any]) -> None:
    predictor, scan = examples["predictor"], examples["scan"]
    path = examples["folder"] / examples["path"]
    itk = predictor(sitk.ReadImage(str(path)))
    assert isinstance(itk, sitk.Image)
    array = predictor((scan.get_fdata(), None, scan.affine))
    image = predictor(scan)
    assert isinstance(image, nibabel.Nifti1Image)
    assert np.array_equal(image.affine, scan.affine)
    assert np.array_equal(np.asanyarray(image.dataobj), array)
    assert np.array_equal(sitk.GetArrayFromImage(itk).T, array)


def test_seeds_and_methods_are_averaged_compared_and_reported(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cases = [f"case_{number}" for number in range(6)]
    truth = tmp_path / "truth"
    truth.mkdir()
    for case in cases:
        label = np.zeros((6, 12, 12), np.uint8)
        label[2:4, 3:9, 3:9] = 1 + (rng.random((2, 6, 6)) > 0.5)
        sitk.WriteImage(sitk.GetImageFromArray(label), str(truth / f"{case}.nii.gz"))
    for method, shift in (("cps", 1), ("supervised", 2)):
        for seed in (0, 1):
            folder = tmp_path / method / f"seed_{seed}" / "predictions"
            folder.mkdir(parents=True)
            for case in cases:
                moved = np.roll(sitk.GetArrayFromImage(sitk.ReadImage(str(truth / f"{case}.nii.gz"))), shift, axis=2)
                sitk.WriteImage(sitk.GetImageFromArray(moved), str(folder / f"{case}.nii.gz"))
            settings = EvaluateSettings(pred_path=folder, gt_path=truth, workers=1)
            duomod.evaluate(settings, output_csv=folder.parent / "result.csv")
    summaries = [duomod.aggregate(method_base_dir=tmp_path / method) for method in ("cps", "supervised")]
    row = "metric == 'Dice' and organ == 'foreground average'"
    dice = [summary.table.query(row)["mean"].item() for summary in summaries]
    assert 1 > dice[0] > dice[1] > 0
    tables = [tmp_path / method / f"{method}_aggregated_metrics.csv" for method in ("cps", "supervised")]
    compared = duomod.compare(tables=tables, baseline="supervised", output=tmp_path / "comparison", resamples=200)
    compared_row = compared.table.query("metric == 'Dice' and scope == 'foreground'")
    assert compared_row["mean_method"].item() == pytest.approx(100 * dice[0])
    runs = [tmp_path / "cps", tmp_path / "supervised"]
    for _ in range(2):  # the stage's folder takes the function's place at the first call, and must be one too
        reported = duomod.report(runs=runs, output=tmp_path / "report", viewer=False, worst=0)
    assert reported.page.is_file()
    means = reported.table.query(row).set_index("method")["mean"]
    assert means.to_dict() == pytest.approx({"cps": dice[0], "supervised": dice[1]})


def test_mistakes_are_told_by_name() -> None:
    with pytest.raises(InputError) as told:
        duomod.train(model="cps", dta_path="x", max_epoch=3)
    text = str(told.value)
    assert "dta_path: no such setting. Did you mean 'data_path'?" in text
    assert "max_epoch" in text
    assert "output_dir: is needed" in text
    with pytest.raises(InputError, match="overlap"):
        duomod.Predictor.load("best_model.pth", overlap=2)


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys, duomod; assert callable(duomod.train) and 'Predictor' in dir(duomod)\n"
        "print(sorted({'torch', 'monai', 'SimpleITK', 'pandas', 'scipy', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        getattr(duomod, "trian")  # noqa: B009
