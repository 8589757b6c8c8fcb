"""A store whose files are not what was written is refused before it is used: each damage, in a line with the file."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw_sets import UNIT, preprocess, raw_set

from duomod.errors import InputError
from duomod.preprocessing.store import Store
from duomod.preprocessing.verify import VERIFIED, verify


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    return preprocess(raw_set(folder / "raw", cases=2), folder / "whole", spacing=UNIT)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "store"))


def check(folder: Path) -> None:
    verify(Store.open(folder), ["case_0", "case_1"])


def without_checksums(folder: Path) -> None:
    """As an earlier version wrote it."""

    def change(index: dict[str, Any]) -> None:
        for case in index["cases"]:
            del case["crc32"]

    edit(folder, change)


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    index = json.loads((folder / "dataset.json").read_text())
    change(index)
    (folder / "dataset.json").write_text(json.dumps(index))


def flip(path: Path, at: float, keep_time: bool = False) -> None:
    """Turn one bit over; ``at`` is the share of the file before it."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 4
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def resave(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    np.save(path, change(np.load(path)))


def recoords(path: Path, **changes: np.ndarray | None) -> None:
    with np.load(path) as stored:
        arrays = {key: stored[key] for key in stored.files}
    arrays |= changes
    np.savez(path, **{key: array for key, array in arrays.items() if array is not None})


class TestBits:
    def test_a_sound_store_passes_also_one_without_checksums(self, folder: Path) -> None:
        check(folder)
        without_checksums(folder)
        check(folder)

    @pytest.mark.parametrize("file", ["imagesTr/case_0.npy", "labelsTr/case_1.npy", "coords/case_0.npz"])
    @pytest.mark.parametrize("at", [0.5, 0.99])
    def test_a_flipped_bit_is_noticed(self, folder: Path, file: str, at: float) -> None:
        flip(folder / file, at)
        with pytest.raises(InputError) as caught:
            check(folder)
        (problem,) = caught.value.problems
        assert problem.startswith(str(folder / file))

    def test_all_of_them_are_told_at_once(self, folder: Path) -> None:
        for file in ("imagesTr/case_0.npy", "labelsTr/case_1.npy"):
            flip(folder / file, 0.9)
        with pytest.raises(InputError) as caught:
            check(folder)
        assert ["case_0" in caught.value.problems[0], "case_1" in caught.value.problems[1]] == [True, True]

    def test_what_was_found_right_is_not_read_again_until_it_changes(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        check(folder)
        assert "checking the data: 6/6" in capsys.readouterr().err
        check(folder)
        assert capsys.readouterr().err == ""
        flip(folder / "labelsTr/case_0.npy", 0.9, keep_time=True)
        with pytest.raises(InputError, match=r"case_0\.npy: is not what was written"):
            check(folder)
        assert "1/1" in capsys.readouterr().err

    def test_a_copy_is_read_again_also_one_that_keeps_the_times(self, folder: Path, tmp_path: Path) -> None:
        check(folder)
        copy = Path(shutil.copytree(folder, tmp_path / "copy"))
        flip(copy / "labelsTr/case_0.npy", 0.9, keep_time=True)
        with pytest.raises(InputError, match="is not what was written"):
            check(copy)

    @pytest.mark.parametrize("content", ["{", "[]", '{"imagesTr/case_0.npy": 1}'])
    def test_a_damaged_note_of_what_was_right_does_no_harm(self, folder: Path, content: str) -> None:
        (folder / VERIFIED).write_text(content)
        flip(folder / "imagesTr/case_0.npy", 0.9)
        with pytest.raises(InputError, match="is not what was written"):
            check(folder)

    def test_a_file_that_was_changed_on_purpose_passes_without_its_checksum(self, folder: Path) -> None:
        resave(folder / "imagesTr/case_0.npy", lambda image: image + 1)
        with pytest.raises(InputError, match="where it was changed on purpose, remove its crc32 from"):
            check(folder)
        edit(folder, lambda index: index["cases"][0]["crc32"].pop("image"))
        check(folder)

    def test_a_folder_that_may_not_be_written_is_checked_all_the_same(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("duomod.preprocessing.verify.write_json", refuse)
        check(folder)
        assert not (folder / VERIFIED).exists()


@pytest.mark.parametrize("checksums", [True, False], ids=["with checksums", "without"])
@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        ("imagesTr/case_0.npy", lambda path: path.write_bytes(path.read_bytes()[:-7]), r"damaged"),
        ("imagesTr/case_0.npy", lambda path: path.write_bytes(path.read_bytes() + b"more"), r"bytes, expected"),
        ("imagesTr/case_0.npy", lambda path: resave(path, np.transpose), r"shape \(10, 9, 8\), expected"),
        ("imagesTr/case_0.npy", lambda path: resave(path, lambda a: a.astype(np.float32)), "float32, expected int16"),
        ("imagesTr/case_0.npy", lambda path: resave(path, lambda a: a.astype(">i2")), "array of >i2"),
        ("imagesTr/case_0.npy", lambda path: np.save(path, np.array([{}]), allow_pickle=True), "damaged"),
        ("imagesTr/case_0.npy", lambda path: path.write_bytes(declared("(9, 1000000, 1000000, 1000)")), "damaged"),
        ("imagesTr/case_0.npy", lambda path: path.write_bytes(declared("(-8, 9, 10)")), "damaged"),
        ("imagesTr/case_0.npy", lambda path: path.write_bytes(declared("(8, 9, " * 200)), "damaged"),
        ("labelsTr/case_0.npy", lambda path: resave(path, lambda a: a.astype(np.float32)), "float32, expected uint8"),
        ("labelsTr/case_0.npy", lambda path: resave(path, lambda a: a[:-1]), r"shape \(7, 9, 10\), expected"),
        ("labelsTr/case_0.npy", lambda path: path.unlink(), "file not found"),
        ("coords/case_0.npz", lambda path: path.write_bytes(path.read_bytes()[:-30]), "damaged"),
        ("coords/case_0.npz", lambda path: recoords(path, **{"1": None}), "classes -1, 2, expected -1, 1, 2"),
        ("coords/case_0.npz", lambda path: recoords(path, **{"7": np.ones((3, 3), int)}), "classes -1, 1, 2, 7,"),
        ("coords/case_0.npz", lambda path: recoords(path, **{"1": np.full((3, 3), 8)}), "outside the array"),
        ("coords/case_0.npz", lambda path: recoords(path, **{"1": np.full((3, 3), -1)}), "outside the array"),
        ("coords/case_0.npz", lambda path: recoords(path, **{"1": np.ones((3, 3))}), "no list of voxels"),
        ("coords/case_0.npz", lambda path: recoords(path, **{"1": np.ones((3, 2), int)}), "no list of voxels"),
        ("coords/case_0.npz", lambda path: recoords(path, **{"1": np.ones((0, 3), int)}), "no list of voxels"),
        ("coords/case_0.npz", lambda path: recoords(path, **{"1": np.zeros((10**6, 3), int)}), "more than 10,000"),
        ("coords/case_0.npz", lambda path: bomb(path), "more than 10,000"),
        ("coords/case_0.npz", lambda path: path.write_bytes(declared("(3, 3)")), "damaged"),
    ],
)
def test_arrays_that_are_not_those_of_the_index(
    folder: Path, file: str, damage: Callable[[Path], None], words: str, checksums: bool
) -> None:
    if not checksums:
        without_checksums(folder)
    damage(folder / file)
    with pytest.raises(InputError, match=words) as caught:
        check(folder)
    (problem,) = caught.value.problems
    assert problem.startswith(str(folder / file))
    assert "\n" not in problem


def declared(shape: str) -> bytes:
    """A file of numpy's form whose header says anything."""
    header = f"{{'descr': '<i2', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(100)


def bomb(path: Path) -> None:
    """A few kilobytes that stand for 64 MB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key in ("-1", "1", "2"):
            archive.writestr(f"{key}.npy", bytes(64 << 20) if key == "1" else declared("(3, 3)"))


def test_values_are_looked_at_where_there_is_no_checksum(folder: Path) -> None:
    without_checksums(folder)
    resave(folder / "labelsTr/case_0.npy", lambda label: np.where(label == 2, 3, label).astype(np.uint8))
    with pytest.raises(InputError, match=r"labelsTr/case_0\.npy: label value 3, but there are 3 classes"):
        check(folder)


def test_intensities_that_are_not_finite(tmp_path: Path) -> None:
    raw = raw_set(tmp_path / "raw", cases=2)
    (raw / "dataset.json").write_text(
        json.dumps({"labels": {"0": "background", "1": "large", "2": "small"}, "modality": {"0": "MRI"}})
    )
    folder = preprocess(raw, tmp_path / "mr", spacing=UNIT, accept_intensities=True)
    without_checksums(folder)

    def spoil(image: np.ndarray) -> np.ndarray:
        image[3, 3, 3] = np.nan
        return image

    resave(folder / "imagesTr/case_1.npy", spoil)
    with pytest.raises(InputError, match=r"imagesTr/case_1\.npy: intensities that are not finite"):
        check(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda index: index.update(spec=[1, 2]), "no description"),
        (lambda index: index.update(spec=None), "no description"),
        (lambda index: index.update(cases={"a": 1}), "not a list"),
        (lambda index: index.update(cases=[1, None]), "damaged list of cases"),
        (lambda index: index.update(channels="two"), "channels two"),
        (lambda index: index.update(channels=[]), "channels"),
        (lambda index: index["cases"].append(index["cases"][0]), "case_0: is there twice"),
        (lambda index: index["cases"][0].update(case_id="../../x"), "cannot be a case id"),
        (lambda index: index["cases"][0].update(case_id=7), "case_id"),
        (lambda index: index["cases"][0].update(shape=[-8, 9, 10]), "shape"),
        (lambda index: index["cases"][0].update(shape=[10**9] * 3), "shape"),
        (lambda index: index["cases"][0].update(shape=[8, 9]), "shape"),
        (lambda index: index["cases"][0].update(shape=[8, 10, 9]), "on a grid of shape"),
        (lambda index: index["cases"][0].update(voxels=[1, 2, 3]), "6 voxels counted"),
        (lambda index: index["cases"][0].update(voxels=[720]), "voxels of 1 classes, not 3"),
        (lambda index: index["cases"][0].update(voxels=None), "voxels must be counted"),
        (lambda index: index["cases"][0].update(voxels=[-1, 0, 721]), "voxels"),
        (lambda index: index["cases"][0].update(modality="PET"), "modality"),
        (lambda index: index["cases"][0].update(role="../Tr"), "role"),
        (lambda index: index["cases"][0].update(source="/etc/passwd"), "source"),
        (lambda index: index["cases"][0]["working"].update(spacing=[0, 1, 1]), "must be positive"),
        (lambda index: index["cases"][0]["original"].update(size=[0, 1, 1]), "must be positive"),
        (lambda index: index["cases"][0]["original"].update(direction=[0] * 9), "no orientation"),
        (lambda index: index["cases"][0]["original"].update(origin=[float("nan"), 0, 0]), "NaN"),
        (lambda index: index["cases"][0]["original"].update(origin=["a", 0, 0]), "origin"),
        (lambda index: index["cases"][0].update(crc32=[1]), "crc32"),
    ],
)
def test_an_index_that_describes_no_data_set(
    folder: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    edit(folder, change)
    with pytest.raises(InputError, match=words) as caught:
        Store.open(folder)
    assert all(problem.startswith(str(folder / "dataset.json")) for problem in caught.value.problems)
