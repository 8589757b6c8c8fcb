"""Class names from whatever lies beside the labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from duomod.datasets.spec import load_spec
from duomod.errors import InputError
from duomod.evaluation.naming import classes_in_json, find_naming

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


@pytest.mark.parametrize(
    ("content", "classes"),
    [
        ({"labels": {"0": "background", "1": "a", "10": "k", **{str(i): f"c{i}" for i in range(2, 10)}}}, 11),
        ({"labels": {"background": 0, "a": 1, "b": 2}}, 3),
        ({"labels": {"background": 0, "a": 1, "ignore": 255}}, 2),
        ({"labels": {"1": "a", "2": "b"}}, 3),
        ({"classes": ["background", "a"]}, 2),
        ({"spec": {"classes": ["background", "a"]}}, 2),
        ({"labels": {"background": 0, "whole": [1, 2], "core": 2}}, None),
        ({"labels": {"background": 0, "a": 2}}, None),
        ({"labels": ["a"]}, None),
        ({"labels": {"0": "background", "1": "a", "2": "a"}}, None),
        ([], None),
    ],
)
def test_styles(content: object, classes: int | None) -> None:
    found = classes_in_json(content)
    assert (len(found) if found else None) == classes
    assert found is None or found[0] == "background"


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
