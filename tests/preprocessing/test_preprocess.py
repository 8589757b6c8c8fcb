"""Preprocessing of real files: right values in the right place, whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from raw_sets import UNIT, body, content, preprocess, raw_set, scan, write

from duomod.datasets.splits import resolve_split
from duomod.errors import InputError
from duomod.preprocessing.case import class_coords
from duomod.preprocessing.store import BODY, Store


class TestValues:
    @pytest.mark.parametrize("orientation", ["RAS", "LPI", "PIR", "ASL"])
    def test_any_orientation_gives_the_same_arrays(self, tmp_path: Path, orientation: str) -> None:
        raw = raw_set(tmp_path / "raw", cases=1, orientations=(orientation,))
        store = Store.open(preprocess(raw, tmp_path / "out", spacing=UNIT))
        hu, label = body()
        np.testing.assert_array_equal(store.image("case_0")[0], hu)
        np.testing.assert_array_equal(store.label("case_0"), label)

    def test_the_record_keeps_both_grids(self, tmp_path: Path) -> None:
        hu, _ = body((6, 8, 10))
        path = write(tmp_path / "raw" / "imagesTr" / "a.nii.gz", scan(hu, "LPI", (0.75, 1.5, 3.0)))
        original = sitk.ReadImage(str(path))
        store = Store.open(preprocess(tmp_path / "raw", tmp_path / "out", num_classes=2))
        record = store.cases["a"]
        assert record.original.size == original.GetSize()
        assert record.original.origin == original.GetOrigin()
        assert record.original.direction == original.GetDirection()
        assert record.working.spacing == (1.5, 1.5, 2.0)
        # round(10 * 0.75 / 1.5), round(8 * 1.5 / 1.5), round(6 * 3 / 2), as z, y, x
        assert record.shape == store.image("a").shape[1:] == (9, 8, 5)

    def test_a_ramp_in_mm_stays_a_ramp_in_mm(self, tmp_path: Path) -> None:
        # HU = 3 x + 5 z - 90 in mm from the first voxel: linear resampling keeps it inside the scan.
        z, _, x = np.meshgrid(np.arange(12) * 2.5, np.arange(8) * 1.0, np.arange(16) * 0.5, indexing="ij")
        write(tmp_path / "raw/imagesTr/a.nii.gz", scan((3 * x + 5 * z - 90).astype(np.float32), "RAS", (0.5, 1.0, 2.5)))
        store = Store.open(preprocess(tmp_path / "raw", tmp_path / "out", num_classes=2, spacing=(1, 1, 1.25)))
        got = store.image("a")[0, :-1, :, :-1]
        z, _, x = np.meshgrid(*(np.arange(n) for n in got.shape), indexing="ij")
        np.testing.assert_allclose(got, 3 * x + 5 * 1.25 * z - 90, atol=0.51)

    def test_counts_and_statistics_are_those_of_the_arrays(self, tmp_path: Path) -> None:
        store = Store.open(preprocess(raw_set(tmp_path / "raw"), tmp_path / "out"))
        for case, record in store.cases.items():
            image, label = store.image(case)[0], store.label(case)
            assert record.voxels == tuple(int((label == value).sum()) for value in range(3))
            assert record.intensity["mean"] == pytest.approx(image.mean(), abs=1e-3)
            assert record.intensity["max"] == image.max()

    def test_amos_mr_cases_are_normalised_per_case(self, tmp_path: Path) -> None:
        hu, _ = body()
        for case, offset in (("amos_0499", 0), ("amos_0507", 2000)):
            write(tmp_path / "raw/imagesTr" / f"{case}.nii.gz", scan((hu + offset).astype(np.int16)))
        store = Store.open(preprocess(tmp_path / "raw", tmp_path / "out", dataset="amos22"))
        assert [store.cases[c].modality for c in ("amos_0499", "amos_0507")] == ["CT", "MR"]
        assert store.image("amos_0499").dtype == np.int16
        assert store.image("amos_0507").dtype == np.float32
        assert 0 <= store.image("amos_0507").min() < store.image("amos_0507").max() <= 1

    def test_merged_labels(self, tmp_path: Path) -> None:
        hu, label = body()
        label = label.astype(np.int16)
        label[label == 1] = 16
        label[label == 2] = 300
        write(tmp_path / "raw/imagesTr/a.nii.gz", scan(hu))
        write(tmp_path / "raw/labelsTr/a.nii.gz", scan(label))
        (tmp_path / "d.yaml").write_text("{name: d, classes: [background, a, b], label_merges: {16: 2, 300: 1}}")
        out = preprocess(tmp_path / "raw", tmp_path / "out", dataset=str(tmp_path / "d.yaml"), spacing=UNIT)
        np.testing.assert_array_equal(Store.open(out).label("a"), np.array([0, 2, 1])[body()[1]])

    def test_float_labels_with_whole_values(self, tmp_path: Path) -> None:
        hu, label = body()
        write(tmp_path / "raw/imagesTr/a.nii.gz", scan(hu, "LPS"))
        write(tmp_path / "raw/labelsTr/a.nii.gz", scan(label.astype(np.float64), "LPS"))
        store = Store.open(preprocess(tmp_path / "raw", tmp_path / "out", num_classes=3, spacing=UNIT))
        np.testing.assert_array_equal(store.label("a"), label)

    def test_coordinates_are_capped_seeded_and_right(self) -> None:
        label = np.zeros((30, 30, 30), dtype=np.uint8)
        label[:25] = 1
        label[29, 3, 4] = 2
        image = np.full(label.shape, -1000, dtype=np.int16)
        image[:10] = 0
        coords = class_coords(image, label, "CT", "a")
        assert {key: len(voxels) for key, voxels in coords.items()} == {BODY: 9000, 1: 10_000, 2: 1}
        assert coords[2].tolist() == [[29, 3, 4]]
        assert len(np.unique(coords[1], axis=0)) == 10_000
        assert np.all(label[tuple(coords[1].T)] == 1)
        again, other = class_coords(image, label, "CT", "a"), class_coords(image, label, "CT", "b")
        assert np.array_equal(coords[1], again[1])
        assert not np.array_equal(coords[1], other[1])

    def test_a_scan_without_body_gives_voxels_from_everywhere(self) -> None:
        coords = class_coords(np.full((2, 3, 4), -1000, dtype=np.int16), None, "CT", "a")
        assert len(coords[BODY]) == 24


class TestFolder:
    def test_one_process_per_case_gives_the_same_as_one_process(self, tmp_path: Path) -> None:
        raw = raw_set(tmp_path / "raw", cases=4)
        one = preprocess(raw, tmp_path / "one")
        two = preprocess(raw, tmp_path / "two", workers=2)
        assert content(one) == content(two)

    def test_unlabelled_scans_are_training_cases(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        raw = raw_set(tmp_path / "raw")
        write(raw / "imagesTr/more.nii.gz", scan(body(seed=7)[0]))
        write(raw / "imagesUn/further.nii.gz", scan(body(seed=8)[0]))
        store = Store.open(preprocess(raw, tmp_path / "out"))
        assert "3 labelled and 2 unlabelled training cases" in capsys.readouterr().err
        assert store.cases["further"].role == "Tr"
        assert store.cases["further"].voxels is None
        assert resolve_split(store).unlabelled == ("further", "more")

    def test_what_may_surprise_is_said(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        raw = raw_set(tmp_path / "raw", cases=1)
        labels = {"background": 0, "large": 1, "small": 2, "never there": 3}
        (raw / "dataset.json").write_text(json.dumps({"labels": labels, "channel_names": {"0": "CT"}}))
        preprocess(raw, tmp_path / "out", spacing=UNIT)
        told = capsys.readouterr().err
        assert "no training case has never there" in told
        assert "1 of 1 scans are smaller than the patch" in told
        assert "nnU-Net v2 style" in told

    def test_a_second_run_does_nothing_again(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        raw = raw_set(tmp_path / "raw")
        out = preprocess(raw, tmp_path / "out")
        before, times = content(out), {p: p.stat().st_mtime_ns for p in out.rglob("*.np?")}
        preprocess(raw, tmp_path / "out")
        assert "3 of 3 cases are done already" in capsys.readouterr().err
        assert content(out) == before
        assert {p: p.stat().st_mtime_ns for p in out.rglob("*.np?")} == times

    def test_a_touched_file_is_compared_by_content(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        raw = raw_set(tmp_path / "raw")
        preprocess(raw, tmp_path / "out")
        os.utime(raw / "imagesTr/case_1.nii.gz", (1, 1))
        preprocess(raw, tmp_path / "out")
        assert "3 of 3 cases are done already" in capsys.readouterr().err

    def test_only_a_changed_case_is_done_again(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        raw = raw_set(tmp_path / "raw")
        out = preprocess(raw, tmp_path / "out", spacing=UNIT)
        write(raw / "imagesTr/case_1.nii.gz", scan(body(seed=9)[0], "LPS"))
        preprocess(raw, out, spacing=UNIT)
        assert "2 of 3 cases are done already" in capsys.readouterr().err
        np.testing.assert_array_equal(Store.open(out).image("case_1")[0], body(seed=9)[0])

    def test_another_spacing_does_all_again(self, tmp_path: Path) -> None:
        raw = raw_set(tmp_path / "raw")
        preprocess(raw, tmp_path / "out", spacing=UNIT)
        coarse = preprocess(raw, tmp_path / "out", spacing=(2.0, 2.0, 2.0))
        fresh = preprocess(raw, tmp_path / "fresh", spacing=(2.0, 2.0, 2.0))
        assert content(coarse) == content(fresh)

    def test_the_result_mirrors_the_raw_folder(self, tmp_path: Path) -> None:
        raw = raw_set(tmp_path / "raw")
        out = preprocess(raw, tmp_path / "out")
        for kind in ("imagesTr", "labelsTr"):
            (raw / kind / "case_2.nii.gz").unlink()
            moved = raw / kind.replace("Tr", "Va") / "case_1.nii.gz"
            moved.parent.mkdir()
            (raw / kind / "case_1.nii.gz").rename(moved)
        (raw / "labelsVa/case_1.nii.gz").unlink()
        preprocess(raw, out)
        assert content(out) == content(preprocess(raw, tmp_path / "fresh"))


class TestBadInput:
    def test_all_problems_come_together_and_nothing_is_written(self, tmp_path: Path) -> None:
        raw = raw_set(tmp_path / "raw", cases=6)
        (raw / "imagesTr/case_0.nii.gz").write_bytes(b"")
        whole = (raw / "imagesTr/case_1.nii.gz").read_bytes()
        (raw / "imagesTr/case_1.nii.gz").write_bytes(whole[: len(whole) // 2])
        hu, label = body(seed=2)
        write(raw / "imagesTr/case_2.nii.gz", scan(np.where(label, np.nan, hu).astype(np.float32), "PIR"))
        write(raw / "labelsTr/case_3.nii.gz", scan(label + 1))
        (raw / "imagesTr/case_4.nii.gz").unlink()
        (raw / "splits").mkdir()
        (raw / "splits/labeled_5p.txt").write_text("nobody")
        for workers in (1, 2):
            with pytest.raises(InputError) as caught:
                preprocess(raw, tmp_path / "deep" / "out", workers=workers)
            text = str(caught.value)
            assert len(caught.value.problems) == 6
            for words in (
                "labelsTr/case_4.nii.gz: a label without",
                "no such case: nobody",
                *(f"case_{i}" for i in range(4)),
            ):
                assert words in text
            assert not (tmp_path / "deep").exists()

    def test_a_defect_found_late_leaves_nothing_either(self, tmp_path: Path) -> None:
        # Large cases come first, so the small bad one is found when others have been written already.
        raw = raw_set(tmp_path / "raw", cases=5)
        write(raw / "labelsTr/case_9.nii.gz", scan(np.full((2, 2, 2), 9, np.uint8)))
        write(raw / "imagesTr/case_9.nii.gz", scan(np.zeros((2, 2, 2), np.int16)))
        for workers in (1, 2):
            with pytest.raises(InputError, match="case_9"):
                preprocess(raw, tmp_path / "out", workers=workers)
            assert not (tmp_path / "out").exists()

    def test_an_earlier_result_survives_bad_input(self, tmp_path: Path) -> None:
        raw = raw_set(tmp_path / "raw")
        out = preprocess(raw, tmp_path / "out")
        before = content(out)
        (raw / "imagesTr/case_0.nii.gz").write_bytes(b"")
        write(raw / "imagesTr/case_1.nii.gz", scan(body(seed=9)[0], "LPS"))
        with pytest.raises(InputError, match="case_0"):
            preprocess(raw, out)
        assert content(out) == before
        assert len(Store.open(out).cases) == 3

    @pytest.mark.parametrize("place", ["raw", "file", "other"])
    def test_a_wrong_output_folder(self, tmp_path: Path, place: str) -> None:
        raw = raw_set(tmp_path / "raw")
        (tmp_path / "file").write_text("a file")
        other = raw_set(tmp_path / "elsewhere", cases=1)
        preprocess(other, tmp_path / "other")
        before = content(tmp_path)
        with pytest.raises(InputError, match=str(tmp_path / place)):
            preprocess(raw, tmp_path / place)
        assert content(tmp_path) == before

    def test_a_missing_folder_and_a_wrong_number_of_classes(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="folder not found"):
            preprocess(tmp_path / "nowhere", tmp_path / "out")
        with pytest.raises(InputError, match=r"4 disagrees .*dataset\.json, which has 3"):
            preprocess(raw_set(tmp_path / "raw"), tmp_path / "out", num_classes=4)
        assert not (tmp_path / "out").exists()


class TestRealData:
    @pytest.mark.parametrize(("name", "classes"), [("oasis", 16), ("hippocampus", 3)])
    def test_a_few_real_scans(self, tmp_path: Path, shared_data: Path, name: str, classes: int) -> None:
        source = shared_data / name
        if not source.is_dir():
            pytest.skip(f"no {name} in {shared_data}")
        raw = tmp_path / name
        for kind in ("images", "labels"):
            (raw / kind).mkdir(parents=True)
            for path in sorted((source / kind).glob("*.nii.gz"))[:3]:
                (raw / kind / path.name).symlink_to(path)
        store = Store.open(preprocess(raw, tmp_path / "out", num_classes=classes))
        for case, record in store.cases.items():
            original = sitk.ReadImage(str(raw / record.source))
            raw_mm = np.array(original.GetSize()) * original.GetSpacing()
            got_mm = np.array(record.working.size) * record.working.spacing
            assert np.all(np.abs(np.sort(raw_mm) - np.sort(got_mm)) <= max(record.working.spacing))
            assert np.count_nonzero(record.voxels) == classes
            label = sitk.GetArrayFromImage(sitk.ReadImage(str(raw / "labels" / f"{case}.nii.gz")))
            raw_volume = np.bincount(label.ravel().astype(int), minlength=classes) * np.prod(original.GetSpacing())
            volume = np.array(record.voxels) * np.prod(record.working.spacing)
            np.testing.assert_allclose(volume[1:4].sum(), raw_volume[1:4].sum(), rtol=0.05)
            image = store.normalised(case)[0]
            assert image.min() >= 0
            assert image.max() <= 1
            assert image.std() > 0.05
