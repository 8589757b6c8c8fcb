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
from duomod.report.sources.collect import collect
from duomod.report.sources.files import locate
from duomod.report.sources.scans import CaseSource, Overlay, read_case
from duomod.report.worst import worst_cases
from duomod.settings import checked


def report(runs: list[Path], output: Path, **options: object) -> Path:
    return run_report(checked(ReportSettings, {"runs": runs, "output": output, **options}))


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

    @pytest.mark.parametrize("length", [MAX_POINTS + 1, 730, 2 * MAX_POINTS - 1, 6007])
    def test_a_long_curve_keeps_its_course_and_its_last_point(self, length: int) -> None:
        steps = np.arange(length) * 10 + 9
        smooth = 3 * np.exp(-steps / (2 * length)) + steps / (10 * length)
        thin_steps, thin = map(np.asarray, _thinned(steps.tolist(), smooth.tolist()))
        assert MAX_POINTS / 2 < len(thin) <= MAX_POINTS
        assert (thin_steps[-1], thin[-1]) == (steps[-1], pytest.approx(smooth[-1], abs=1e-5))
        # On the curve, not beside it.
        expected = 3 * np.exp(-thin_steps / (2 * length)) + thin_steps / (10 * length)
        np.testing.assert_allclose(thin, expected, atol=1e-3)

    @pytest.mark.parametrize("length", [730, 1100])
    def test_noise_is_averaged_alike_along_a_curve(self, length: int) -> None:
        noise = np.random.default_rng(0).normal(size=(200, length))
        thin = np.array([_thinned(list(range(length)), row.tolist())[1] for row in noise])
        spread = thin.std(axis=0)[1:-1]  # without the first bin, which may be smaller, and the last point
        fifth = len(spread) // 5
        assert spread[-fifth:].mean() == pytest.approx(spread[:fifth].mean(), rel=0.05)
        assert thin[:, 1:-1].mean() == pytest.approx(noise.mean(), abs=0.01)

    def test_weights_of_seeds_are_averaged_at_the_steps_that_both_logged(self, study: Path, tmp_path: Path) -> None:
        shutil.copytree(study / "runs" / "duomodnet", tmp_path / "duomodnet")
        for seed, steps in ((0, (10, 20, 30)), (1, (20, 30, 40))):
            lines = [json.dumps({"step": step, "rlm_weight/liver": step + seed}) for step in steps]
            (tmp_path / "duomodnet" / f"seed_{seed}" / "metrics.jsonl").write_text("\n".join(lines))
        (chart,) = all_charts(collect([tmp_path / "duomodnet"]))["internals"]
        assert (chart.traces[0]["x"], chart.traces[0]["y"]) == ([20, 30], [20.5, 30.5])

    def test_charts_are_valid_json(self, study: Path) -> None:
        for charts in all_charts(collect([study / "runs"])).values():
            for chart in charts:
                json.dumps(chart.figure(), allow_nan=False)


class TestOverlays:
    def test_the_patient_s_left_is_on_the_right_and_the_front_on_top(self, tmp_path: Path) -> None:
        """An LPS scan: x grows to the patient's left, y to the back."""
        truth = np.zeros((9, 40, 40), np.uint8)
        truth[4, 2:6, 34:38] = 1  # left, front
        for name, array in (("scan", np.zeros(truth.shape, np.int16)), ("truth", truth), ("empty", truth * 0)):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"{name}.nii.gz"))
        paths = [tmp_path / f"{name}.nii.gz" for name in ("scan", "truth", "empty")]
        images, problems = read_case(CaseSource(paths[0], paths[1], [Overlay("mine", paths[2])], 2, "CT"))
        assert images is not None
        assert problems == []
        true, predicted = (to_array(labels) for labels in images.maps)
        planes = write_overlay(tmp_path / "o.png", images.scan, true, predicted, modality="CT")
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
    worst, left_out = worst_cases(collection, locate(collection, None, None), 2, tmp_path)
    assert left_out == []
    found = worst["supervised"]
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

    def test_the_facts_say_which_networks_were_trained(self, report: Path) -> None:
        facts = re.search(r'<p class="facts">(.*?)</p>', (report / "index.html").read_text(encoding="utf-8"))
        assert facts is not None
        assert "2 labelled training scans · network VNet" in facts.group(1)
        # and which method has how many of them
        assert "2 x VNet" in (report / "index.html").read_text(encoding="utf-8")

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
        report([study / "runs" / "cps"], output, viewer=False, worst=0, title="Second")
        assert "<h1>Second</h1>" in (output / "index.html").read_text()
        assert [path.name for path in tmp_path.iterdir()] == ["report"]
        (output / "notes.txt").write_text("from the meeting")
        before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
        with pytest.raises(InputError, match=r"notes\.txt: is not of the report"):
            report([study / "runs" / "cps"], output, viewer=False, worst=0, title="Third")
        assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before

    def test_what_cannot_be_read_is_left_out_and_named(
        self, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        runs = tmp_path / "in" / "cps"
        shutil.copytree(study / "runs" / "cps", runs)
        moved = sitk.ReadImage(str(runs / "seed_0" / "predictions" / "b.nii.gz"))
        moved.SetSpacing((9, 9, 9))
        sitk.WriteImage(moved, str(runs / "seed_0" / "predictions" / "b.nii.gz"))
        (runs / "seed_0" / "predictions" / "c.nii.gz").write_bytes(b"no scan at all")
        (runs / "seed_1" / "config.yaml").write_text("a: [1")
        (runs / "seed_1" / "train_manifest.json").write_text('{"seconds": "long"}')
        folder = report([runs], tmp_path / "report").parent
        named = {(one["of"], one["what"]) for one in json.loads((folder / "report.json").read_text())["left_out"]}
        assert named == {
            ("cps, seed_1", "config.yaml"),
            ("cps, seed_1", "train_manifest.json"),
            ("case b", "a scan or label map"),
            ("case c", "a scan or label map"),
        }
        page = (folder / "index.html").read_text()
        said = capsys.readouterr().err
        for text in ("config.yaml", "train_manifest.json", "lies on another grid", "c.nii.gz: not a gzip file"):
            assert text in page
            assert text in said
        # The scans themselves can be seen.
        assert len(list((folder / "cases").iterdir())) == 3

    def test_runs_without_a_result_are_listed(
        self, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for method in ("cps", "supervised"):
            shutil.copytree(study / "runs" / method, tmp_path / "runs" / method)
        for path in (tmp_path / "runs" / "supervised").glob("seed_*/result.*"):
            path.unlink()
        (tmp_path / "runs" / "cps" / "seed_1" / "result.csv").unlink()
        begun = tmp_path / "runs" / "cps" / "seed_2"
        begun.mkdir()
        (begun / "config.yaml").write_text("train: {max_epochs: 9, final_epoch: true}\nsteps_per_epoch: 50\n")
        (begun / "metrics.jsonl").write_text('{"step": 49, "loss": 1.0}\n{"step": 49, "val_dice": 0.5}\n')
        page = report([tmp_path / "runs"], tmp_path / "report", worst=0, viewer=False)
        listed = {
            one["run"]: one["state"] for one in json.loads(page.with_name("report.json").read_text())["unfinished"]
        }
        assert list(listed) == ["cps, seed_1", "cps, seed_2", "supervised, seed_0", "supervised, seed_1"]
        assert listed["supervised, seed_0"] == "predicted and not evaluated"
        assert listed["cps, seed_2"].startswith(
            "its training has not ended: step 50 of 500, best validation Dice 50.0 %, last logged 20"
        )
        said = capsys.readouterr().err
        for run in listed:
            assert run in page.read_text()
            assert f"{run}: no result yet" in said

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
