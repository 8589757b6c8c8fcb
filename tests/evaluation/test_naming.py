"""Class names from whatever lies beside the labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from duomod.datasets.index import FORMAT
from duomod.datasets.recognise import resolve_spec
from duomod.datasets.spec import load_spec
from duomod.errors import InputError
from duomod.evaluation.naming import find_naming

ORIGINAL_AMOS = [
    "background",
    "spleen",
    "right kidney",
    "left kidney",
    "gall bladder",
    "esophagus",
    "liver",
    "stomach",
    "arota",
    "postcava",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
    "duodenum",
    "bladder",
    "prostate/uterus",
]


def test_amos_as_it_ships_is_recognised_with_its_tail(tmp_path: Path) -> None:
    labels = {str(index): name for index, name in enumerate(ORIGINAL_AMOS)}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    (tmp_path / "labelsVa").mkdir()
    naming = find_naming(tmp_path / "elsewhere", tmp_path / "labelsVa", None, 16)
    assert naming.dataset == "amos22"
    assert naming.tail_classes == load_spec("amos22").tail_classes


def test_word_as_it_ships_is_recognised_with_its_merge(tmp_path: Path) -> None:
    truth = tmp_path / "WORD" / "labelsVal"
    truth.mkdir(parents=True)
    names = [*load_spec("word").classes, "right femur"]
    (truth.parent / "dataset.json").write_text(json.dumps({"labels": {str(i): n for i, n in enumerate(names)}}))
    naming = find_naming(tmp_path, truth, None, None)
    assert (naming.dataset, dict(naming.label_merges)) == ("word", {16: 15})


def test_a_folder_named_like_a_data_set_counts_when_the_number_of_classes_fits(tmp_path: Path) -> None:
    truth = tmp_path / "AMOS22" / "labelsVa"
    truth.mkdir(parents=True)
    assert find_naming(tmp_path, truth, None, 16).dataset == "amos22"
    assert find_naming(tmp_path, truth, None, 4).classes == ("background", "class_1", "class_2", "class_3")


def test_an_explicit_json(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps({"labels": {"background": 0, "x": 1}}))
    assert find_naming(tmp_path, tmp_path, str(tmp_path / "mine.json"), None).classes == ("background", "x")
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(InputError, match="names no classes"):
        find_naming(tmp_path, tmp_path, str(tmp_path / "mine.json"), None)


def test_a_json_that_cannot_be_used_is_said_and_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = tmp_path / "labels"
    truth.mkdir()
    (truth / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "whole": [1, 2], "core": 2}}))
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "x": 1}}))
    assert find_naming(tmp_path, truth, None, None).classes == ("background", "x")
    assert "'whole' is a region" in capsys.readouterr().err
    with pytest.raises(InputError, match="'whole' is a region"):
        find_naming(tmp_path, truth, str(truth / "dataset.json"), None)


def test_preprocess_and_evaluate_read_one_json_alike(tmp_path: Path) -> None:
    """Other names than AMOS's, as many, in a folder called after it: both go by the names, which are the user's."""
    folder = tmp_path / "AMOS22"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    labels = {"background": 0, **{f"part {i}": i for i in range(1, 16)}}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    for found in (find_naming(tmp_path, folder / "labelsTr", None, None), resolve_spec(folder, None, None)):
        assert found.classes == tuple(labels)


def test_a_preprocessed_set_keeps_its_tail_its_merges_and_its_suffix(tmp_path: Path) -> None:
    spec = load_spec("word").model_copy(update={"name": "ours", "image_suffix": "_0000"})
    (tmp_path / "dataset.json").write_text(json.dumps({"format": FORMAT, "spec": spec.model_dump(mode="json")}))
    (tmp_path / "labels").mkdir()
    for naming in (
        find_naming(tmp_path / "elsewhere", tmp_path / "labels", None, None),
        find_naming(tmp_path, tmp_path / "labels", str(tmp_path / "dataset.json"), None),
    ):
        assert (naming.dataset, naming.classes, naming.image_suffix) == ("ours", spec.classes, "_0000")
        assert (naming.tail_classes, dict(naming.label_merges)) == (spec.tail_classes, {16: 15})
        assert naming.source == str(tmp_path / "dataset.json")


def test_a_description_of_a_preprocessed_set_that_is_broken_is_named(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"format": FORMAT, "spec": {"name": 5}}))
    with pytest.raises(InputError, match=r"dataset\.json: spec: classes"):
        find_naming(tmp_path, tmp_path, str(tmp_path / "dataset.json"), None)
