"""What the report collects, computes and writes; how it looks in a browser is in test_report_page.py."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from duomod.datasets.scan import to_array
from duomod.errors import InputError
from duomod.report.charts import all_charts
from duomod.report.charts.curves import MAX_POINTS, _thinned
from duomod.report.charts.missed import missed_counts
from duomod.report.charts.scores import head_mean, tail_mean
from duomod.report.overlays import worst_slice, write_overlay
from duomod.report.page import run_report
from duomod.report.settings import ReportSettings
from duomod.report.sources.collect import baseline_of, collect, read_curves
from duomod.report.sources.files import locate
from duomod.report.sources.scans import CaseSource, Overlay, read_case
from duomod.report.worst import worst_cases
from duomod.settings import checked


def report(runs: list[Path], output: Path, **options: object) -> Path:
    return run_report(checked(ReportSettings, {"runs": runs, "output": output, **options}))


METHODS = ["cps", "duomodnet", "supervised"]


class TestCollect:
    def test_finds_methods_in_a_folder_of_methods(self, study: Path) -> None:
        collection = collect([study / "runs"])
        assert [method.name for method in collection.methods] == METHODS
        assert collection.classes == ("liver", "gallbladder", "adrenal")
        assert collection.tail == ("gallbladder", "adrenal")
        assert collection.columns == ("Dice", "ASD")
        assert collection.methods[0].values["Dice"].shape == (2, 3, 3)

    def test_the_order_given_is_the_order_shown(self, study: Path) -> None:
        runs = study / "runs"
        collection = collect([runs / "supervised", runs / "cps"])
        assert [method.name for method in collection.methods] == ["supervised", "cps"]

    def test_one_seed_s_folder_is_that_seed_of_its_method(self, study: Path) -> None:
        (method,) = collect([study / "runs" / "cps" / "seed_1"]).methods
        assert method.name == "cps"
        assert [seed.name for seed in method.seeds] == ["seed_1"]

    def test_an_evaluated_folder_of_anyone_s_is_a_method(self, study: Path, tmp_path: Path) -> None:
        shutil.copytree(study / "runs" / "cps" / "seed_0", tmp_path / "theirs")
        (method,) = collect([tmp_path / "theirs"]).methods
        assert (method.name, len(method.seeds)) == ("theirs", 1)

    def test_methods_of_the_same_name_are_told_apart_by_their_parents(self, study: Path, tmp_path: Path) -> None:
        for parent in ("few", "many"):
            shutil.copytree(study / "runs" / "cps", tmp_path / parent / "cps")
        names = [method.name for method in collect([tmp_path / "few" / "cps", tmp_path / "many" / "cps"]).methods]
        assert names == ["few/cps", "many/cps"]

    def test_all_problems_are_listed_at_once(self, study: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError) as caught:
            collect([tmp_path / "empty", tmp_path / "absent", study / "runs"])
        assert len(caught.value.problems) == 2
        assert "empty" in caught.value.problems[0]
        assert "no such folder" in caught.value.problems[1]

    def test_other_conventions_are_refused(self, study: Path, tmp_path: Path) -> None:
        shutil.copytree(study / "runs" / "cps", tmp_path / "cps2")
        for path in (tmp_path / "cps2").glob("seed_*/result.json"):
            info = json.loads(path.read_text())
            info["conventions"]["empty_policy"] = "other"
            path.write_text(json.dumps(info))
        with pytest.raises(InputError, match="empty_policy"):
            collect([study / "runs" / "cps", tmp_path / "cps2"])

    def test_a_last_log_line_cut_off_by_a_crash_is_left_out(self, tmp_path: Path) -> None:
        log = tmp_path / "metrics.jsonl"
        log.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5, "note": "x"}\n{"step": 3, "lo')
        assert read_curves(log) == {"loss": ([1, 2], [2.0, 1.5])}

    def test_any_other_broken_record_is_named(self, study: Path, tmp_path: Path) -> None:
        log = tmp_path / "metrics.jsonl"
        log.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo\n{"step": 3, "loss": 1.0}\n')
        with pytest.raises(InputError, match=r"metrics\.jsonl: line 2 is broken"):
            read_curves(log)
        shutil.copytree(study / "runs" / "cps", tmp_path / "cps")
        (tmp_path / "cps" / "seed_0" / "train_manifest.json").write_text("{")
        (tmp_path / "cps" / "seed_1" / "predictions" / "prediction.json").write_text("[]")
        for seed, named in (("seed_0", "train_manifest.json"), ("seed_1", "prediction.json")):
            with pytest.raises(InputError, match=named):
                collect([tmp_path / "cps" / seed])

    def test_the_baseline_is_supervised_unless_another_is_named(self, study: Path) -> None:
        collection = collect([study / "runs"])
        assert baseline_of(collection, None) == "supervised"
        assert baseline_of(collection, "cps") == "cps"
        with pytest.raises(InputError, match="Did you mean 'cps'"):
            baseline_of(collection, "cpss")


class TestCharts:
    def test_head_and_tail_are_means_over_their_classes_then_cases(self, study: Path) -> None:
        method = collect([study / "runs" / "cps"]).methods[0]
        dice = method.values["Dice"]
        by_hand = [np.mean([np.nanmean(case[1:]) for case in seed]) for seed in dice]
        np.testing.assert_allclose(tail_mean(method, "Dice", ("gallbladder", "adrenal")), by_hand)
        np.testing.assert_allclose(head_mean(method, "Dice", ("gallbladder", "adrenal")), dice[:, :, 0].mean(axis=1))

    def test_missed_organs_are_counted_over_seeds(self, study: Path) -> None:
        supervised = collect([study / "runs" / "supervised"]).methods[0]
        counts = missed_counts(supervised)
        assert counts is not None
        # Both seeds miss the adrenal of the two cases that have one; the third case has none to miss.
        assert counts.tolist() == [[0, 0, 2], [0, 0, 2], [0, 0, 0]]

    def test_box_plots_hold_every_defined_value_once(self, study: Path) -> None:
        collection = collect([study / "runs"])
        chart = all_charts(collection)["classes"][0]
        for method, trace in zip(collection.methods, chart.traces, strict=True):
            shown = sorted(value for value in trace["y"])
            expected = np.sort(100 * method.per_case[np.isfinite(method.per_case)])
            np.testing.assert_allclose(shown, expected, atol=1e-4)

    def test_dice_against_volume_takes_true_volumes_in_ml(self, study: Path) -> None:
        chart = next(c for c in all_charts(collect([study / "runs"]))["balance"] if c.key == "volume")
        trace = chart.traces[0]
        volumes = dict(zip(trace["text"], trace["x"], strict=True))
        # 7 x 10 x 9 voxels of 1 x 1.5 x 2 mm
        assert volumes["liver, a"] == pytest.approx(7 * 10 * 9 * 3 / 1000)

    def test_rlm_weights_and_dafr_gain_are_shown_for_those_that_log_them(self, study: Path) -> None:
        charts = all_charts(collect([study / "runs"]))["internals"]
        assert [chart.title for chart in charts] == ["RLM weights", "DAFR gain"]
        assert [trace["name"] for trace in charts[0].traces] == ["background", "liver", "gallbladder", "adrenal"]

    def test_long_curves_are_thinned_without_moving_their_mean(self) -> None:
        values = np.random.default_rng(0).normal(size=10 * MAX_POINTS)
        steps, thin = _thinned(list(range(len(values))), values.tolist())
        assert len(steps) == MAX_POINTS
        assert steps[-1] == len(values) - 1
        assert np.mean(thin) == pytest.approx(values.mean(), abs=1e-4)

    def test_charts_are_valid_json(self, study: Path) -> None:
        for charts in all_charts(collect([study / "runs"])).values():
            for chart in charts:
                json.dumps(chart.figure(), allow_nan=False)


class TestFiles:
    def test_scans_come_from_the_predictions_and_truth_from_the_evaluation(self, study: Path) -> None:
        files, notes = locate(collect([study / "runs"]), None, None)
        assert notes == []
        assert [entry.scan for entry in files] == [study / "images" / f"{case}.nii.gz" for case in "abc"]
        assert [entry.truth for entry in files] == [study / "labels" / f"{case}.nii.gz" for case in "abc"]
        assert len(files[0].predictions) == 6

    def test_a_named_folder_must_hold_every_case(self, study: Path, tmp_path: Path) -> None:
        shutil.copy(study / "images" / "a.nii.gz", tmp_path / "a_0000.nii.gz")
        with pytest.raises(InputError, match=r"holds no scan of b, c$"):
            locate(collect([study / "runs"]), tmp_path, None)


class TestOverlays:
    def test_the_patient_s_left_is_on_the_right_and_the_front_on_top(self, tmp_path: Path) -> None:
        """An LPS scan: x grows to the patient's left, y to the back."""
        truth = np.zeros((9, 40, 40), np.uint8)
        truth[4, 2:6, 34:38] = 1  # left, front
        for name, array in (("scan", np.zeros(truth.shape, np.int16)), ("truth", truth), ("empty", truth * 0)):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"{name}.nii.gz"))
        paths = [tmp_path / f"{name}.nii.gz" for name in ("scan", "truth", "empty")]
        scan, maps = read_case(
            CaseSource("a", paths[0], paths[1], [Overlay("mine", paths[2])], ("background", "organ"), "CT")
        )
        true, predicted = (to_array(labels) for labels in maps)
        planes = write_overlay(tmp_path / "o.png", scan, true, predicted, modality="CT")
        assert planes[0] == "axial slice 5 of 9"
        picture = np.asarray(Image.open(tmp_path / "o.png"))
        panel = picture.shape[1] // 4
        axial = picture[:panel, panel : 2 * panel]
        coloured = np.argwhere(axial.max(axis=2) > axial.min(axis=2) + 40)
        rows, columns = coloured.mean(axis=0) / panel
        assert rows < 0.3
        assert columns > 0.7

    def test_the_slice_shown_is_the_one_with_most_errors(self) -> None:
        truth = np.zeros((5, 6, 7), np.uint8)
        truth[1] = 1
        prediction = truth.copy()
        prediction[3, :2] = 2
        assert worst_slice(truth, prediction, 0) == 3
        assert worst_slice(truth, truth, 0) == 1
        assert worst_slice(truth * 0, truth * 0, 0) == 2


def test_worst_cases_come_first_with_the_seed_that_did_worst(study: Path, tmp_path: Path) -> None:
    collection = collect([study / "runs" / "supervised"])
    files, _ = locate(collection, None, None)
    found = worst_cases(collection, files, 2, tmp_path)["supervised"]
    method = collection.methods[0]
    dice = np.nanmean(method.per_case, axis=1)
    assert [case.dice for case in found] == pytest.approx(sorted(dice)[:2])
    # Seed 0 leaves out three rows of the liver, seed 1 four.
    assert {case.seed for case in found} == {"seed_1"}
    assert all((tmp_path / str(case.picture)).is_file() for case in found)


class TestPage:
    @pytest.fixture(scope="class")
    @staticmethod
    def report(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return report([study / "runs"], tmp_path_factory.mktemp("out") / "report").parent

    def test_nothing_is_loaded_from_the_network(self, report: Path) -> None:
        page = (report / "index.html").read_text()
        loaded = re.findall(r"""(?:src|href)=["']([^"'#]+)""", page)
        assert loaded
        for path in loaded:
            assert path.startswith("data:") or (report / path).is_file(), path

    def test_the_numbers_are_those_of_the_aggregation(self, report: Path, study: Path) -> None:
        record = json.loads((report / "report.json").read_text())
        method = collect([study / "runs"]).methods[1]
        spread = record["methods"]["duomodnet"]["summary"]["metrics"]["Dice"]["foreground"]
        assert spread["mean"] == pytest.approx(method.summary.metrics["Dice"].foreground.mean)
        assert f"{100 * spread['mean']:.2f} ± {100 * spread['std']:.2f}" in (report / "index.html").read_text()
        assert {c["method"] for c in record["comparisons"]} == {"cps", "duomodnet"}

    def test_every_case_is_there_to_view(self, report: Path) -> None:
        assert sorted(path.name for path in (report / "cases").iterdir()) == ["1.js", "2.js", "3.js"]

    def test_a_report_is_replaced_and_anything_else_is_not(self, study: Path, tmp_path: Path) -> None:
        output = tmp_path / "report"
        report([study / "runs" / "cps"], output, viewer=False, worst=0)
        (output / "stale.txt").write_text("from the older report")
        report([study / "runs" / "cps"], output, viewer=False, worst=0, title="Second")
        assert "<h1>Second</h1>" in (output / "index.html").read_text()
        assert not (output / "stale.txt").exists()
        assert [path.name for path in tmp_path.iterdir()] == ["report"]
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.tex").write_text("years of work")
        with pytest.raises(InputError, match="not a report"):
            report([study / "runs" / "cps"], tmp_path / "mine")

    def test_a_failure_leaves_nothing_behind(self, study: Path, tmp_path: Path) -> None:
        runs = tmp_path / "in" / "cps"
        shutil.copytree(study / "runs" / "cps", runs)
        image = sitk.ReadImage(str(runs / "seed_0" / "predictions" / "b.nii.gz"))
        image.SetSpacing((9, 9, 9))
        for seed in ("seed_0", "seed_1"):
            sitk.WriteImage(image, str(runs / seed / "predictions" / "b.nii.gz"))
        with pytest.raises(InputError, match=r"b\.nii\.gz"):
            report([runs], tmp_path / "out" / "report")
        assert list((tmp_path / "out").iterdir()) == []

    def test_names_from_outside_cannot_become_code(self, study: Path, tmp_path: Path) -> None:
        evil = tmp_path / "<script>alert(1)<"
        shutil.copytree(study / "runs" / "duomodnet", evil)
        page = report([evil], tmp_path / "report", worst=0).read_text()
        assert "<script>alert(1)" not in page
        for script in (tmp_path / "report" / "cases").iterdir():
            assert "<" not in script.read_text()

    def test_without_scans_the_rest_is_reported_and_the_page_says_so(self, study: Path, tmp_path: Path) -> None:
        runs = tmp_path / "cps"
        shutil.copytree(study / "runs" / "cps", runs)
        for manifest in runs.glob("seed_*/predictions/prediction.json"):
            manifest.unlink()
        page = report([runs], tmp_path / "report").read_text()
        assert "scan not found for all cases" in page
        assert "This report holds no volumes" in page
