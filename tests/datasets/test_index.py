"""Every style of dataset.json, and what cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from duomod.datasets.index import Index, read_index
from duomod.errors import InputError


def index(folder: Path, content: object) -> Index:
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return read_index(folder / "dataset.json")


@pytest.mark.parametrize(
    ("content", "classes"),
    [
        ({"labels": {"0": "background", "1": "a", "10": "k", **{str(i): f"c{i}" for i in range(2, 10)}}}, 11),
        ({"labels": {"background": 0, "a": 1, "b": 2}}, 3),
        ({"labels": {"background": 0, "a": "1"}}, 2),
        ({"labels": {"background": 0, "a": 1, "ignore": 255}}, 2),
        ({"labels": {"background": 0, "a": 1, "ignore": 2}}, 2),
        ({"labels": {"0": "background", "1": "a", "255": "unknown"}}, 2),
        ({"labels": {"1": "a", "2": "b"}}, 3),
        ({"classes": ["background", "a"]}, 2),
        ({"spec": {"classes": ["background", "a"]}}, 2),
        ({"labels": ["a"]}, 0),
        ({"labels": {}}, 0),
        ({}, 0),
        ([], 0),
    ],
)
def test_styles(content: object, classes: int, tmp_path: Path) -> None:
    found = index(tmp_path, content)
    assert (len(found.classes), found.problems) == (classes, ())
    assert found.classes[:1] in ((), ("background",))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"background": 0, "whole": [1, 2], "core": 2}, "'whole' is a region"),
        ({"background": 0, "a": 2}, "without gaps, found 0, 2"),
        ({"background": 0, "a": 1, "b": 1}, "same number 1"),
        ({"background": 0, "a": True}, "must have a number"),
        ({"0": "background", "1": 7}, "label 1 must have a name"),
        ({"0": "background", "1": "a", "2": "a"}, "name of its own"),
        ({"0": "background"}, "at least two classes"),
        ({"0": "background", "1": ["a"]}, "label 1 must have a name, found ['a']"),
        ({"0": "background", "1": None}, "must have a name, found None"),
        ({"0": "background", "1": "a", "01": "b"}, "there twice"),
        ({"background": 0, "a": {"b": 1}}, "must have a number"),
        ({"background": 0, "a": 1.5}, "must have a number"),
        ({"background": 0, "a": 10**8}, "must have a number"),
        ({"background": 0, **{f"c{i}": i for i in range(2, 3000)}}, "and 2988 more"),
    ],
)
def test_classes_that_cannot_be_used_are_explained(labels: object, words: str, tmp_path: Path) -> None:
    found = index(tmp_path, {"labels": labels, "channel_names": {"0": "CT"}})
    assert found.classes == ()
    (problem,) = found.problems
    assert problem.startswith(str(tmp_path / "dataset.json"))
    assert words in problem
    assert (found.modality, found.names_channels) == ("CT", True)


@pytest.mark.parametrize(
    ("content", "modality", "channels"),
    [
        ({"modality": {"0": "CT"}}, "CT", 1),
        ({"modality": "ct"}, "CT", 1),
        ({"modality": ["MRI"]}, "MR", 1),
        ({"channel_names": {"0": "T1", "1": "T2"}}, "MR", 2),
        ({"modality": {"0": "CT scan"}}, "CT", 1),
        ({"modality": {"0": "CT_abdomen"}}, "CT", 1),
        ({"modality": {"0": "Computed Tomography"}}, "CT", 1),
        ({"modality": {"0": "ADC"}}, "MR", 1),
        ({"modality": {"0": "Pelvic ectopic T2"}}, "MR", 1),
        ({"modality": {"0": 5}}, None, 1),
        ({"modality": {"0": {"name": "CT"}}}, None, 1),
        ({"modality": {"0": ""}}, None, 1),
        ({"modality": 7}, None, 1),
        ({"modality": {}}, None, 1),
        ({}, None, 1),
    ],
)
def test_the_modality_is_the_first_channels(
    content: object, modality: str | None, channels: int, tmp_path: Path
) -> None:
    found = index(tmp_path, content)
    assert (found.modality, found.channels) == (modality, channels)


def test_an_ignored_label_is_told_and_is_no_class(tmp_path: Path) -> None:
    assert index(tmp_path, {"labels": {"background": 0, "a": 1, "ignore": 2}}).ignored == 2
    assert index(tmp_path, {"labels": {"background": 0, "a": 1}}).ignored is None


def test_ours_is_known_by_its_format(tmp_path: Path) -> None:
    assert index(tmp_path, {"format": "duomod-preprocessed-1", "spec": {"classes": ["background", "a"]}}).preprocessed
    assert not index(tmp_path, {"classes": ["background", "a"]}).preprocessed
    for foreign in ("NIfTI", "nii.gz", 1, None, ["duomod-preprocessed-1"], {}):
        assert not index(tmp_path, {"format": foreign, "classes": ["background", "a"]}).preprocessed


def test_what_is_no_json_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="file not found"):
        read_index(tmp_path / "dataset.json")
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(InputError, match="not a valid JSON"):
        read_index(tmp_path / "dataset.json")


def test_classes_that_are_no_names_are_explained(tmp_path: Path) -> None:
    assert "must be names, found 1" in index(tmp_path, {"classes": ["background", 1]}).problems[0]
    assert index(tmp_path, {"name": 5, "file_ending": [".nii"], "classes": ["background", "a"]}).problems == ()
