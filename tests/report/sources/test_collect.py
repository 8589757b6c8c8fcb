"""Which runs a report takes, and where their scans are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import SimpleITK as sitk

from duomod.errors import InputError
from duomod.report.sources.collect import baseline_of, collect
from duomod.report.sources.files import locate, remarks

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

    def test_seed_folders_of_one_parent_are_one_method(self, study: Path) -> None:
        given = sorted((study / "runs").glob("*/seed_*"))
        seeds = {method.name: [seed.name for seed in method.seeds] for method in collect(given).methods}
        assert seeds == {name: ["seed_0", "seed_1"] for name in METHODS}
        assert collect(given).methods[0].summary == collect([study / "runs"]).methods[0].summary

    def test_a_folder_that_is_given_twice_counts_once(self, study: Path) -> None:
        runs = study / "runs"
        (method,) = collect([runs / "cps", runs / "cps" / "seed_1", runs / "cps"]).methods
        assert [seed.name for seed in method.seeds] == ["seed_0", "seed_1"]

    def test_seeds_of_other_conventions_are_refused_also_when_given_one_by_one(
        self, study: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(study / "runs" / "cps", tmp_path / "cps")
        path = tmp_path / "cps" / "seed_1" / "result.json"
        info = json.loads(path.read_text())
        info["conventions"]["empty_policy"] = "other"
        path.write_text(json.dumps(info))
        with pytest.raises(InputError, match="empty_policy"):
            collect([tmp_path / "cps" / "seed_0", tmp_path / "cps" / "seed_1"])

    def test_a_method_of_the_current_folder_has_its_name(
        self, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(study / "runs" / "cps")
        assert [method.name for method in collect([Path()]).methods] == ["cps"]

    def test_runs_of_which_none_has_a_result_are_refused_with_what_they_lack(self, tmp_path: Path) -> None:
        (tmp_path / "cps" / "seed_0").mkdir(parents=True)
        with pytest.raises(InputError) as caught:
            collect([tmp_path])
        assert "no run has a result.csv yet" in caught.value.problems[0]
        assert caught.value.problems[1].endswith("seed_0: nothing there yet")

    def test_the_baseline_is_supervised_unless_another_is_named(self, study: Path) -> None:
        collection = collect([study / "runs"])
        assert baseline_of(collection, None) == "supervised"
        assert baseline_of(collection, "cps") == "cps"
        with pytest.raises(InputError, match="Did you mean 'cps'"):
            baseline_of(collection, "cpss")


class TestFiles:
    def test_scans_come_from_the_predictions_and_truth_from_the_evaluation(self, study: Path) -> None:
        collection = collect([study / "runs"])
        files = locate(collection, None, None)
        assert remarks(collection, files) == []
        assert [entry.scan for entry in files] == [study / "images" / f"{case}.nii.gz" for case in "abc"]
        assert [entry.truth for entry in files] == [study / "labels" / f"{case}.nii.gz" for case in "abc"]
        assert len(files[0].predictions) == 6

    def test_a_named_folder_must_hold_every_case(self, study: Path, tmp_path: Path) -> None:
        shutil.copy(study / "images" / "a.nii.gz", tmp_path / "a_0000.nii.gz")
        with pytest.raises(InputError, match=r"holds no scan of b, c$"):
            locate(collect([study / "runs"]), tmp_path, None)

    def test_two_files_of_a_case_are_refused_in_a_named_folder(self, study: Path, tmp_path: Path) -> None:
        shutil.copytree(study / "images", tmp_path / "images")
        shutil.copy(study / "images" / "a.nii.gz", tmp_path / "images" / "a.nrrd")
        with pytest.raises(InputError, match=r"2 files of the case a"):
            locate(collect([study / "runs"]), tmp_path / "images", None)

    def test_label_maps_of_every_kind_are_found(self, study: Path, tmp_path: Path) -> None:
        labels = tmp_path / "labels"
        labels.mkdir()
        for case, ending in zip("abc", (".mha", ".nrrd", ".NII.GZ"), strict=True):
            sitk.WriteImage(sitk.ReadImage(str(study / "labels" / f"{case}.nii.gz")), str(labels / f"{case}.nii.gz"))
            if ending != ".NII.GZ":
                sitk.WriteImage(sitk.ReadImage(str(labels / f"{case}.nii.gz")), str(labels / f"{case}{ending}"))
                (labels / f"{case}.nii.gz").unlink()
            else:
                (labels / f"{case}.nii.gz").rename(labels / f"{case}{ending}")
        files = locate(collect([study / "runs"]), None, labels)
        assert [entry.truth for entry in files] == [labels / "a.mha", labels / "b.nrrd", labels / "c.NII.GZ"]

    def test_a_case_whose_name_is_a_path_leads_nowhere(self, study: Path, tmp_path: Path) -> None:
        (tmp_path / "theirs" / "predictions").mkdir(parents=True)
        (tmp_path / "theirs" / "result.csv").write_text("Filename,Dice_Class1\n../../secret.nii.gz,0.5\n")
        shutil.copy(study / "labels" / "a.nii.gz", tmp_path / "secret.nii.gz")
        (entry,) = locate(collect([tmp_path / "theirs"]), None, None)
        assert entry.predictions == {}
