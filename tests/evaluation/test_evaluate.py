"""Folders in, a table and its conventions out; every mistake in a folder named at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from duomod.errors import DuomodError, InputError
from duomod.evaluation import evaluate as module
from duomod.evaluation.cases import CaseScores, Pair, Settings, score_case
from duomod.evaluation.evaluate import run_evaluate
from duomod.evaluation.results import ResultInfo, organs_path, read_result
from duomod.evaluation.seeds import doubts
from duomod.evaluation.settings import EvaluateSettings
from duomod.settings import checked


def listed(path: Path, *cases: str) -> Path:
    path.write_text("\n".join(cases) + "\n", encoding="utf-8")
    return path


def evaluate(pred_path: Path, gt_path: Path, **options: object) -> Path:
    return run_evaluate(
        checked(EvaluateSettings, {"pred_path": pred_path, "gt_path": gt_path, "workers": 1, **options})
    )


SHAPE = (8, 12, 10)
DIAGONAL_MM = float(np.linalg.norm(np.asarray(SHAPE) * (2.0, 1.5, 1.5)))


def write(
    path: Path, labels: np.ndarray, spacing: tuple[float, float, float] = (1.5, 1.5, 2.0), **grid: object
) -> None:
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing(spacing)
    if "origin" in grid:
        image.SetOrigin(grid["origin"])
    if "direction" in grid:
        image.SetDirection(grid["direction"])
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def organs(shift: int = 0) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:5, 2:6, 2 + shift : 6 + shift] = 1
    labels[5:7, 8:11, 6:9] = 2
    return labels


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three cases: perfect, shifted by one voxel, and one with organ 2 missed and organ 3 invented."""
    pred, truth = tmp_path / "predictions", tmp_path / "labels"
    third = organs()
    third[third == 2] = 0
    third[0, 0, 0] = 3
    for name, labels in (("a", organs()), ("b", organs(1)), ("c", third)):
        write(pred / f"{name}.nii.gz", labels)
        write(truth / f"{name}.nii.gz", organs())
    return pred, truth


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path).set_index("Filename")


class TestResult:
    def test_columns_values_and_side_files(self, folders: tuple[Path, Path], tmp_path: Path) -> None:
        result = evaluate(*folders, output_csv=tmp_path / "out" / "result.csv", num_classes=4)
        found = table(result)
        assert list(found.columns) == [f"{m}_Class{c}" for m in ("Dice", "ASD") for c in (1, 2, 3)]
        assert list(found.index) == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
        assert found.loc["a.nii.gz", ["Dice_Class1", "Dice_Class2"]].tolist() == [1.0, 1.0]
        assert found.loc["b.nii.gz", "Dice_Class1"] == 0.75
        assert found.loc["b.nii.gz", "ASD_Class1"] > 0
        assert np.isnan(found.loc["a.nii.gz", "Dice_Class3"])
        assert found.loc["c.nii.gz", ["Dice_Class2", "Dice_Class3"]].tolist() == [0.0, 0.0]
        np.testing.assert_allclose(found.loc["c.nii.gz", ["ASD_Class2", "ASD_Class3"]].astype(float), DIAGONAL_MM)
        info = json.loads(result.with_suffix(".json").read_text())
        assert info["conventions"]["empty_policy"] == "default"
        assert info["conventions"]["asd"] == "assd"
        assert info["organs"]["class_2"] == {"detected": 2, "misplaced": 0, "missed": 1, "false": 0, "absent": 0}
        assert info["organs"]["class_3"]["false"] == 1
        assert info["organs"]["total"] == {"detected": 5, "misplaced": 0, "missed": 1, "false": 1, "absent": 2}
        organ_rows = pd.read_csv(tmp_path / "out" / "result_organs.csv")
        assert len(organ_rows) == 9
        assert organ_rows.query("Filename == 'c.nii.gz' and Class == 2")["Status"].item() == "missed"
        assert organ_rows.query("Filename == 'a.nii.gz' and Class == 1")["True_ml"].item() == pytest.approx(0.288)
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
            "result.csv",
            "result.json",
            "result_organs.csv",
        ]

    def test_names_come_from_a_dataset_json_near_the_truth(self, folders: tuple[Path, Path], tmp_path: Path) -> None:
        labels = {"0": "background", "1": "liver", "2": "spleen", "3": "tumour"}
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
        result = evaluate(*folders)
        assert result == folders[0] / "result.csv"
        assert read_result(result).info.classes == ("background", "liver", "spleen", "tumour")

    def test_classes_are_counted_from_the_labels_when_nothing_names_them(self, folders: tuple[Path, Path]) -> None:
        found = table(evaluate(*folders))
        assert [c for c in found if c.startswith("Dice")] == ["Dice_Class1", "Dice_Class2", "Dice_Class3"]
        assert np.isnan(found.loc["a.nii.gz", "Dice_Class3"])

    def test_a_workbook(self, folders: tuple[Path, Path], tmp_path: Path) -> None:
        result = evaluate(*folders, output_csv=tmp_path / "result.xlsx")
        csv = evaluate(*folders, output_csv=tmp_path / "other.csv")
        for column, values in read_result(csv).values.items():
            np.testing.assert_allclose(read_result(result).values[column], values)

    def test_all_metrics_and_tolerance_by_name(self, folders: tuple[Path, Path], tmp_path: Path) -> None:
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "x": 1, "y": 2, "z": 3}}))
        result = evaluate(*folders, metrics=("nsd", "hd95", "iou"), tolerance={"x": 0.0})
        found = read_result(result)
        assert list(found.values) == ["NSD", "HD95", "IoU"]
        assert found.info.conventions["nsd_tolerance_mm"] == {"x": 0.0, "y": 2.0, "z": 2.0}
        assert found.values["NSD"][1, 0] < 1.0

    def test_the_reference_convention_under_its_own_name(self, folders: tuple[Path, Path], tmp_path: Path) -> None:
        result = evaluate(
            *folders,
            output_csv=tmp_path / "r.csv",
            num_classes=4,
            asd="itk_average_hausdorff",
            empty_policy="reference",
        )
        found = table(result)
        assert not [column for column in found if column.startswith("ASD")]
        images = [sitk.ReadImage(str(folder / "b.nii.gz")) == 1 for folder in folders]
        hausdorff = sitk.HausdorffDistanceImageFilter()
        hausdorff.Execute(*images)
        assert found.loc["b.nii.gz", "ITKAverageHausdorff_Class1"] == pytest.approx(
            hausdorff.GetAverageHausdorffDistance(), rel=1e-6
        )
        assert found.loc["a.nii.gz", ["Dice_Class3", "ITKAverageHausdorff_Class3"]].tolist() == [1.0, 0.0]
        assert found.loc["c.nii.gz", "Dice_Class2"] == 0.0
        assert np.isnan(found.loc["c.nii.gz", "ITKAverageHausdorff_Class2"])

    def test_the_dhc_protocol(self, folders: tuple[Path, Path], tmp_path: Path) -> None:
        found = table(evaluate(*folders, output_csv=tmp_path / "r.csv", num_classes=4, protocol="dhc"))
        assert found.loc["c.nii.gz", ["DHCDice_Class2", "DHCASDVoxels_Class2"]].tolist() == [0.0, 128.0]
        assert found.loc["a.nii.gz", ["DHCDice_Class3", "DHCASDVoxels_Class3"]].tolist() == [0.01, 0.0]

    def test_dhc_predictions_on_its_own_grid_are_taken_as_they_are(self, tmp_path: Path) -> None:
        write(tmp_path / "p" / "a.nii.gz", np.ones((72, 144, 144), np.uint8))
        write(tmp_path / "t" / "a.nii.gz", np.ones((5, 6, 7), np.uint8))
        found = table(evaluate(tmp_path / "p", tmp_path / "t", protocol="dhc"))
        assert found.loc["a.nii.gz"].tolist() == [1.0, 0.0]

    def test_two_files_instead_of_folders(self, folders: tuple[Path, Path]) -> None:
        result = evaluate(folders[0] / "b.nii.gz", folders[1] / "a.nii.gz")
        assert result.name == "b_result.csv"
        assert table(result).loc["a.nii.gz", "Dice_Class1"] == 0.75

    def test_label_merges_of_a_data_set_apply_to_the_truth(self, tmp_path: Path) -> None:
        labels = np.zeros(SHAPE, np.uint8)
        labels[2:4], labels[4:6] = 15, 16
        write(tmp_path / "t" / "a.nii.gz", labels)
        write(tmp_path / "p" / "a.nii.gz", np.minimum(labels, 15))
        found = table(evaluate(tmp_path / "p", tmp_path / "t", dataset="word"))
        assert found.loc["a.nii.gz", "Dice_Class15"] == 1.0

    def test_float_label_maps_are_fine_when_whole(self, folders: tuple[Path, Path], tmp_path: Path) -> None:
        write(folders[1] / "a.nii.gz", organs().astype(np.float32))
        assert table(evaluate(*folders)).loc["a.nii.gz", "Dice_Class1"] == 1.0

    def test_label_maps_that_the_prediction_did_not_make_are_named(
        self, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        names = sorted(path.name.removesuffix(".nii.gz") for path in folders[0].iterdir())
        record = {"cases": dict.fromkeys(names[1:], "")}
        (folders[0] / "prediction.json").write_text(json.dumps(record), encoding="utf-8")
        evaluate(*folders, output_csv=folders[0].parent / "r.csv")
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "does not list" in line]
        assert f"{names[0]}.nii.gz" in line
        assert f"{names[1]}.nii.gz" not in line

    def test_workers_change_nothing(self, folders: tuple[Path, Path], tmp_path: Path) -> None:
        one = evaluate(*folders, output_csv=tmp_path / "1.csv", workers=1)
        two = evaluate(*folders, output_csv=tmp_path / "2.csv", workers=2)
        assert one.read_bytes() == two.read_bytes()


class TestProblems:
    def test_all_problems_of_a_folder_are_reported_together(self, folders: tuple[Path, Path]) -> None:
        pred, truth = folders
        write(pred / "extra.nii.gz", organs())
        for name in "defghij":
            write(truth / f"{name}.nii.gz", organs())
        write(pred / "d.nii.gz", organs()[:-1])
        write(pred / "e.nii.gz", organs(), spacing=(1.5, 1.5, 2.5))
        write(pred / "f.nii.gz", organs(), origin=(0.0, 5.0, 0.0))
        write(pred / "g.nii.gz", organs(), direction=(-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))
        write(pred / "h.nii.gz", organs() * 7)
        (pred / "i.nii.gz").write_bytes((pred / "a.nii.gz").read_bytes()[:60])
        with pytest.raises(InputError) as caught:
            evaluate(pred, truth, num_classes=4)
        text = str(caught.value)
        assert len(caught.value.problems) == 8
        for word in ("extra file", "no prediction of the case j", "size", "spacing", "origin", "direction", "i.nii.gz"):
            assert word in text, word
        assert "unknown label value(s) 7, 14 outside 0..3" in text
        assert caught.value.exit_code == 2
        assert not (pred / "result.csv").exists()

    def test_a_missing_prediction_can_be_scored_as_all_missed(
        self, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        (folders[0] / "a.nii.gz").unlink()
        result = evaluate(*folders, allow_missing=True, num_classes=4)
        found = table(result)
        assert found.loc["a.nii.gz", ["Dice_Class1", "Dice_Class2"]].tolist() == [0.0, 0.0]
        assert found.loc["a.nii.gz", "ASD_Class1"] == pytest.approx(DIAGONAL_MM)
        assert read_result(result).info.missing_predictions == ("a.nii.gz",)
        assert "Scored as all-missed, because the prediction is missing: a.nii.gz." in capsys.readouterr().err

    def test_predictions_that_their_folder_does_not_list_are_named(
        self, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        record = {"model": "m.pth", "settings": {}, "cases": {"a": "1", "b": "2"}, "scans": {}}
        (folders[0] / "prediction.json").write_text(json.dumps(record))
        result = evaluate(*folders)
        assert "its prediction.json does not list c.nii.gz: not of the model" in capsys.readouterr().err
        info = read_result(result).info
        assert info.unlisted_predictions == ("c.nii.gz",)
        assert doubts({"seed_0": read_result(result)}) == [
            "seed_0: c.nii.gz not of the model that prediction.json names"
        ]

    def test_named_cases_only(self, folders: tuple[Path, Path]) -> None:
        (folders[0] / "a.nii.gz").unlink()
        write(folders[0] / "extra.nii.gz", organs())
        assert list(table(evaluate(*folders, cases=listed(folders[0].parent / "some.txt", "c", "b.nii.gz"))).index) == [
            "c.nii.gz",
            "b.nii.gz",
        ]
        with pytest.raises(InputError, match="no label map of the case nobody"):
            evaluate(*folders, cases=listed(folders[0].parent / "none.txt", "nobody", "b"))

    def test_classes_that_contradict_the_description(self, folders: tuple[Path, Path], tmp_path: Path) -> None:
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "x": 1}}))
        with pytest.raises(InputError, match=r"4 classes were asked for, but .*dataset\.json has 2"):
            evaluate(*folders, num_classes=4)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"protocol": "dch"}, "Did you mean 'dhc'"),
            ({"empty_policy": "defualt"}, "Did you mean 'default'"),
            ({"protocol": "dhc", "asd": "one_way"}, "has its own ASD"),
            ({"tolerance": -1.0}, "0 or more"),
            ({"tolerance": (1.0, 2.0), "num_classes": 4}, "2 tolerances for 3 classes"),
            ({"tolerance": {"clas_1": 1.0}, "num_classes": 4}, "Did you mean 'class_1'"),
            ({"output_csv": Path("result.txt")}, r"must end with \.csv or \.xlsx"),
        ],
    )
    def test_wrong_options(self, folders: tuple[Path, Path], options: dict[str, object], message: str) -> None:
        with pytest.raises(InputError, match=message):
            evaluate(*folders, **options)

    def test_missing_and_empty_folders(self, folders: tuple[Path, Path], tmp_path: Path) -> None:
        with pytest.raises(InputError) as caught:
            evaluate(tmp_path / "no", tmp_path / "neither")
        assert len(caught.value.problems) == 2
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match="holds no label map"):
            evaluate(folders[0], tmp_path / "empty")
        with pytest.raises(InputError, match="two folders, or two files"):
            evaluate(folders[0], folders[1] / "a.nii.gz")

    def test_an_image_in_place_of_labels(self, folders: tuple[Path, Path]) -> None:
        write(folders[1] / "a.nii.gz", organs().astype(np.float32) + 0.25)
        with pytest.raises(InputError, match="not whole numbers"):
            evaluate(*folders)

    def test_no_overlap_at_all_is_explained(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write(tmp_path / "p" / "a.nii.gz", organs() // 2 * 3)
        write(tmp_path / "t" / "a.nii.gz", organs() % 2)
        evaluate(tmp_path / "p", tmp_path / "t")
        shown = capsys.readouterr().err
        assert "No organ of any case overlaps" in shown
        assert "Labels in the truth: 1 (in 1 cases); in the predictions: 3 (in 1 cases)" in shown


class TestResume:
    def test_an_interrupted_run_goes_on(
        self, folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = evaluate(*folders, output_csv=tmp_path / "whole.csv")
        scored: list[str] = []

        def stopping(pair: Pair, settings: Settings) -> CaseScores:
            if len(scored) == 2:
                raise KeyboardInterrupt
            scored.append(pair.name)
            return score_case(pair, settings)

        monkeypatch.setattr(module, "score_case", stopping)
        with pytest.raises(KeyboardInterrupt):
            evaluate(*folders, output_csv=tmp_path / "result.csv")
        assert not (tmp_path / "result.csv").exists()
        again: list[str] = []
        monkeypatch.setattr(module, "score_case", lambda pair, s: again.append(pair.name) or score_case(pair, s))
        resumed = evaluate(*folders, output_csv=tmp_path / "result.csv")
        assert (scored, again) == (["a.nii.gz", "b.nii.gz"], ["c.nii.gz"])
        assert resumed.read_bytes() == whole.read_bytes()

    def test_nothing_is_done_twice_but_a_change_is_seen(
        self, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        result = evaluate(*folders)
        before = result.stat().st_mtime_ns
        calls: list[str] = []
        monkeypatch.setattr(module, "score_case", lambda pair, s: calls.append(pair.name) or score_case(pair, s))
        evaluate(*folders)
        assert (calls, result.stat().st_mtime_ns) == ([], before)
        evaluate(*folders, empty_policy="reward_absence")
        assert len(calls) == 3
        write(folders[0] / "a.nii.gz", organs(2))
        evaluate(*folders, empty_policy="reward_absence")
        assert table(result).loc["a.nii.gz", "Dice_Class1"] == 0.5

    def test_other_names_of_the_same_classes_are_a_change(self, folders: tuple[Path, Path]) -> None:
        spec = {"name": "mine", "classes": ["background", "x", "y", "z"]}
        description = folders[0].parent / "mine.yaml"

        def info(**changes: object) -> ResultInfo:
            description.write_text(json.dumps({**spec, **changes}))
            return read_result(evaluate(*folders, dataset=str(description))).info

        assert info().tail_classes == ()
        assert info(tail_classes=["z"]).tail_classes == ("z",)
        assert info(name="other", tail_classes=["z"]).dataset == "other"
        assert info(name="other", classes=["background", "x", "y", "w"]).classes[3] == "w"

    def test_a_lost_or_edited_table_of_organs_is_made_again(self, folders: tuple[Path, Path]) -> None:
        organs_table = organs_path(evaluate(*folders))
        whole = organs_table.read_bytes()
        for spoil in (organs_table.unlink, lambda: organs_table.write_bytes(whole[:-9])):
            spoil()
            evaluate(*folders)
            assert organs_table.read_bytes() == whole

    def test_good_cases_are_kept_when_another_one_is_broken(
        self, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        good = (folders[0] / "b.nii.gz").read_bytes()
        (folders[0] / "b.nii.gz").write_bytes(good[:50])
        with pytest.raises(InputError, match=r"b\.nii\.gz"):
            evaluate(*folders)
        (folders[0] / "b.nii.gz").write_bytes(good)
        calls: list[str] = []
        monkeypatch.setattr(module, "score_case", lambda pair, s: calls.append(pair.name) or score_case(pair, s))
        evaluate(*folders)
        assert calls == ["b.nii.gz"]

    def test_a_dead_worker_is_a_clear_error(self, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_outcome", die)
        with pytest.raises(DuomodError, match=r"a worker process ended unexpectedly while at a\.nii\.gz"):
            evaluate(*folders, workers=2)


def die(pair: Pair, settings: Settings) -> None:
    """Stands for a worker that the system kills; at module level so that it can be sent to one."""
    import os

    os._exit(9)
