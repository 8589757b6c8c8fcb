"""A store gives back what was put in, memory-mapped, and says clearly when it cannot."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from duomod.errors import InputError
from duomod.preprocessing.preprocess import run_preprocess
from duomod.preprocessing.settings import PreprocessSettings
from duomod.preprocessing.store import Store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("raw")
    for case in ("a", "b"):
        hu = np.full((4, 5, 6), -1000, dtype=np.int16)
        hu[1:3] = 75
        label = np.zeros((4, 5, 6), dtype=np.uint8)
        label[1:3, 1:3] = 1
        for kind, array in (("imagesTr", hu), ("labelsTr", label)):
            if kind == "labelsTr" and case == "b":
                continue
            (raw / kind).mkdir(exist_ok=True)
            sitk.WriteImage(sitk.GetImageFromArray(array), str(raw / kind / f"{case}.nii.gz"))
    return run_preprocess(
        PreprocessSettings(
            data_path=raw,
            output_path=tmp_path_factory.mktemp("out") / "store",
            num_classes=2,
            spacing=(1.0, 1.0, 1.0),
        )
    )


def test_arrays_are_memory_maps_of_the_stored_types(folder: Path) -> None:
    store = Store.open(folder)
    assert isinstance(store.image("a"), np.memmap)
    assert store.image("a").dtype == np.int16
    assert isinstance(store.label("a"), np.memmap)
    assert store.label("a").dtype == np.uint8
    assert store.image("a").shape == store.label("a").shape == store.cases["a"].shape == (4, 5, 6)


def test_normalised_goes_through_the_window(folder: Path) -> None:
    store = Store.open(folder)
    values = store.normalised("a")
    assert values.dtype == np.float32
    assert store.spec.window == (-125, 275)
    np.testing.assert_allclose(np.unique(values), [0, 0.5])


def test_class_counts_are_summed_over_labelled_cases(folder: Path) -> None:
    assert Store.open(folder).class_counts(["a", "b"]).tolist() == [120 - 2 * 2 * 6, 2 * 2 * 6]


def test_coordinates_point_at_their_class_and_unlabelled_cases_have_the_body_only(folder: Path) -> None:
    store = Store.open(folder)
    coords = store.coords("a")
    assert set(coords) == {-1, 1}
    assert all(voxels.dtype == np.int32 for voxels in coords.values())
    assert len(coords[1]) == 24
    assert np.all(store.label("a")[tuple(coords[1].T)] == 1)
    assert set(store.coords("b")) == {-1}
    assert len(store.coords("b")[-1]) == 2 * 5 * 6


def test_a_store_can_be_sent_to_another_process(folder: Path) -> None:
    store = pickle.loads(pickle.dumps(Store.open(folder)))
    assert store == Store.open(folder)


def test_an_unlabelled_case_has_no_label(folder: Path) -> None:
    with pytest.raises(InputError, match="b has no label"):
        Store.open(folder).label("b")


def test_an_unknown_case_is_named(folder: Path) -> None:
    store = Store.open(folder)
    for ask in (store.image, store.label, store.coords, lambda case: store.class_counts([case])):
        with pytest.raises(InputError, match="no case 'z'"):
            ask("z")


def read_all(folder: Path) -> None:
    store = Store.open(folder)
    store.image("a")
    store.coords("a")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: f.joinpath("dataset.json").unlink(), "has not finished"),
        (lambda f: f.joinpath("dataset.json").write_text("{}"), "not preprocessed"),
        (lambda f: f.joinpath("dataset.json").write_text("{"), "not a valid JSON"),
        (lambda f: f.joinpath("dataset.json").write_text(json.dumps({"format": "duomod-preprocessed-0"})), "format"),
        (lambda f: f.joinpath("imagesTr/a.npy").unlink(), r"a\.npy: file not found"),
        (lambda f: f.joinpath("imagesTr/a.npy").write_bytes(b"\x93NUMPY garbage"), r"a\.npy: damaged"),
        (lambda f: f.joinpath("imagesTr/a.npy").write_bytes(b""), r"a\.npy: damaged"),
        (lambda f: f.joinpath("coords/a.npz").unlink(), r"a\.npz: file not found"),
        (lambda f: f.joinpath("coords/a.npz").write_bytes(b"PK"), r"a\.npz: damaged"),
    ],
)
def test_damage_is_told_with_the_file(folder: Path, tmp_path: Path, damage: object, words: str) -> None:
    store = Path(shutil.copytree(folder, tmp_path / "store"))
    damage(store)  # type: ignore[operator]
    with pytest.raises(InputError, match=words):
        read_all(store)


def test_records_of_a_damaged_index(folder: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(folder, tmp_path / "store"))
    index = json.loads((store / "dataset.json").read_text())
    del index["cases"][0]["shape"]
    (store / "dataset.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="damaged list of cases"):
        Store.open(store)


def test_folders_that_are_no_store(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="folder not found"):
        Store.open(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not a preprocessed data set"):
        Store.open(tmp_path)
