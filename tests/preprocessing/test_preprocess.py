"""Preprocessing of real files: right values in the right place, whole or not at all, the same after a kill."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from duomod.datasets.splits import resolve_split
from duomod.errors import InputError
from duomod.preprocessing.case import class_coords
from duomod.preprocessing.preprocess import run_preprocess
from duomod.preprocessing.settings import PreprocessSettings
from duomod.preprocessing.store import BODY, Store
from duomod.settings import checked


def preprocess(data_path: Path, output_path: Path, **options: object) -> Path:
    return run_preprocess(
        checked(PreprocessSettings, {"data_path": data_path, "output_path": output_path, "workers": 1, **options})
    )


UNIT = (1.0, 1.0, 1.0)


def scan(array: np.ndarray, orientation: str = "RAS", spacing: Iterable[float] = UNIT) -> sitk.Image:
    """An image whose array is given in RAS order, but stored on disk in another orientation."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(tuple(spacing))
    image.SetOrigin((12.0, -7.0, 30.0))
    image.SetDirection(sitk.DICOMOrientImageFilter().GetDirectionCosinesFromOrientation("RAS"))
    return sitk.DICOMOrient(image, orientation)


def write(path: Path, image: sitk.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), True)
    return path


def body(shape: tuple[int, int, int] = (8, 9, 10), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """HU with noise and a label with classes 1 and 2, both without any symmetry."""
    rng = np.random.default_rng(seed)
    hu = rng.integers(-100, 100, shape).astype(np.int16)
    hu[0] = -1000
    label = np.zeros(shape, dtype=np.uint8)
    label[1:4, 2:5, 1:7] = 1
    label[5, 6:8, 7:] = 2
    return hu, label


def raw_set(folder: Path, cases: int = 3, orientations: tuple[str, ...] = ("RAS", "LPS", "PIR")) -> Path:
    for index in range(cases):
        hu, label = body(seed=index)
        orientation = orientations[index % len(orientations)]
        write(folder / "imagesTr" / f"case_{index}.nii.gz", scan(hu, orientation))
        write(folder / "labelsTr" / f"case_{index}.nii.gz", scan(label, orientation))
    labels = {"labels": {"0": "background", "1": "large", "2": "small"}, "modality": {"0": "CT"}}
    (folder / "dataset.json").write_text(json.dumps(labels), encoding="utf-8")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """All results; the manifest and the markers hold times and are left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "cases" and "manifest" not in path.name
    }


class TestValues:
    @pytest.mark.parametrize("orientation", ["RAS", "LPI", "PIR", "ASL"])
    def test_any_orientation_gives_the_same_arrays(self, tmp_path: Path, orientation: str) -> None:
        raw = raw_set(tmp_path / "raw", cases=1, orientations=(orientation,))
        store = Store.open(preprocess(raw, tmp_path / "out", spacing=UNIT))
        hu, label = body()
        np.testing.assert_array_equal(store.image("case_0"), hu)
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
        assert record.shape == store.image("a").shape == (9, 8, 5)

    def test_a_ramp_in_mm_stays_a_ramp_in_mm(self, tmp_path: Path) -> None:
        # HU = 3 x + 5 z in mm from the first voxel: linear resampling keeps it inside the scan.
        z, _, x = np.meshgrid(np.arange(12) * 2.5, np.arange(8) * 1.0, np.arange(16) * 0.5, indexing="ij")
        write(tmp_path / "raw/imagesTr/a.nii.gz", scan((3 * x + 5 * z).astype(np.float32), "RAS", (0.5, 1.0, 2.5)))
        store = Store.open(preprocess(tmp_path / "raw", tmp_path / "out", num_classes=2, spacing=(1, 1, 1.25)))
        got = store.image("a")[:-1, :, :-1]
        z, _, x = np.meshgrid(*(np.arange(n) for n in got.shape), indexing="ij")
        np.testing.assert_allclose(got, 3 * x + 5 * 1.25 * z, atol=0.51)

    def test_counts_and_statistics_are_those_of_the_arrays(self, tmp_path: Path) -> None:
        store = Store.open(preprocess(raw_set(tmp_path / "raw"), tmp_path / "out"))
        for case, record in store.cases.items():
            image, label = store.image(case), store.label(case)
            assert record.voxels == tuple(int((label == value).sum()) for value in range(3))
            assert record.intensity["mean"] == pytest.approx(image.mean(), abs=1e-3)
            assert record.intensity["max"] == image.max()

    def test_amos_mr_cases_are_normalised_per_case(self, tmp_path: Path) -> None:
        hu, _ = body()
        for case in ("amos_0499", "amos_0507"):
            write(tmp_path / "raw/imagesTr" / f"{case}.nii.gz", scan((hu + 2000).astype(np.int16)))
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
        np.testing.assert_array_equal(Store.open(out).image("case_1"), body(seed=9)[0])

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


RUN = """
import sys
from duomod.preprocessing.preprocess import run_preprocess
from duomod.preprocessing.settings import PreprocessSettings

if __name__ == "__main__":
    raw, out, workers = sys.argv[1:]
    run_preprocess(
        PreprocessSettings.model_validate(
            {"data_path": raw, "output_path": out, "workers": workers, "spacing": (1, 1, 1)}
        )
    )
"""


def larger_set(raw: Path) -> Path:
    rng = np.random.default_rng(0)
    for index in range(8):
        hu, label = body((40, 60, 60), seed=index)
        write(raw / "imagesTr" / f"case_{index}.nii.gz", scan(rng.integers(-500, 500, hu.shape).astype(np.int16)))
        write(raw / "labelsTr" / f"case_{index}.nii.gz", scan(label))
    (raw / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "a", "2": "b"}}))
    return raw


def started(folder: Path, raw: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    """A real run in another process, as soon as it has finished two cases and before it has finished all."""
    script = folder / "run.py"
    script.write_text(RUN)
    command = [sys.executable, str(script), str(raw), str(out), str(workers)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(out.glob(".unfinished/cases/case_*.json"))) < 2:
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return process


class TestKill:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_a_killed_run_goes_on_and_ends_like_an_uninterrupted_one(
        self, tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        raw = larger_set(tmp_path / "raw")
        whole = preprocess(raw, tmp_path / "whole", spacing=UNIT)
        out = tmp_path / "out"
        process = started(tmp_path, raw, out, workers)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        with pytest.raises(InputError, match="has not finished"):
            Store.open(out)
        # What a kill in the middle of a write leaves behind.
        (out / ".unfinished/imagesTr/.part-abc.npy").write_bytes(b"half")
        capsys.readouterr()
        preprocess(raw, out, spacing=UNIT)
        done = int(capsys.readouterr().err.split(" of 8 cases are done already")[0].split()[-1])
        assert 2 <= done < 8
        assert content(out) == content(whole)

    @pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the workers through /proc")
    def test_a_dead_worker_is_told_and_what_was_done_is_kept(self, tmp_path: Path) -> None:
        raw, out = larger_set(tmp_path / "raw"), tmp_path / "out"
        process = started(tmp_path, raw, out, 2)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        worker = next(c for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes())
        os.kill(int(worker), signal.SIGKILL)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 1
        assert b"a worker process ended unexpectedly" in told
        assert len(list(out.glob(".unfinished/cases/case_*.json"))) >= 2

    def test_a_full_disk_is_an_error_of_the_system_and_the_next_run_goes_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        raw = raw_set(tmp_path / "raw")
        save, calls = np.save, []

        def full(*args: Any, **kwargs: Any) -> None:
            calls.append(args)
            if len(calls) == 4:
                raise OSError(errno.ENOSPC, "No space left on device")
            save(*args, **kwargs)

        monkeypatch.setattr(np, "save", full)
        with pytest.raises(OSError, match="No space left"):
            preprocess(raw, tmp_path / "out")
        monkeypatch.undo()
        assert not list((tmp_path / "out").rglob(".part-*"))
        assert content(preprocess(raw, tmp_path / "out")) == content(preprocess(raw, tmp_path / "fresh"))

    @pytest.mark.parametrize("stop", [1, 3, 4, 5, 12])
    def test_a_kill_while_finished_cases_are_moved(
        self, tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        raw = raw_set(tmp_path / "raw")
        fresh = preprocess(raw, tmp_path / "fresh", spacing=(2.0, 2.0, 2.0))
        out = preprocess(raw, tmp_path / "out", spacing=UNIT)
        import duomod.preprocessing.preprocess as module

        moves = 0
        move = module._move

        def killed(source: Path, target: Path) -> None:
            nonlocal moves
            moves += 1
            if moves == stop:
                raise KeyboardInterrupt
            move(source, target)

        monkeypatch.setattr(module, "_move", killed)
        with pytest.raises(KeyboardInterrupt):
            preprocess(raw, out, spacing=(2.0, 2.0, 2.0))
        monkeypatch.undo()
        with pytest.raises(InputError, match="has not finished"):
            Store.open(out)
        preprocess(raw, out, spacing=(2.0, 2.0, 2.0))
        assert content(out) == content(fresh)


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
            image = store.normalised(case)
            assert image.min() >= 0
            assert image.max() <= 1
            assert image.std() > 0.05
