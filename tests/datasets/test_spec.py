"""Descriptions: the built-in ones are consistent, wrong ones are refused with the field's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from duomod.datasets.spec import builtin_names, load_spec, parse_spec
from duomod.errors import InputError

AMOS_CLASSES = (
    "background,spleen,right kidney,left kidney,gallbladder,esophagus,liver,stomach,aorta,inferior vena cava,pancreas,"
    "right adrenal gland,left adrenal gland,duodenum,bladder,prostate/uterus"
)


@pytest.mark.parametrize("name", builtin_names())
def test_every_built_in_description_loads_and_is_named_like_its_file(name: str) -> None:
    spec = load_spec(name)
    assert spec.name == name
    assert spec.classes[0] == "background"
    assert spec.classes[0] not in spec.tail_classes


def test_amos_has_the_published_class_order_and_tail() -> None:
    spec = load_spec("amos")
    assert spec.classes == tuple(AMOS_CLASSES.split(","))
    assert [spec.classes.index(name) for name in spec.tail_classes] == [5, 4, 13, 11, 12]
    assert spec.sided_label_pairs == ((2, 3), (11, 12))
    assert spec.spacing == (1.5, 1.5, 2.0)


def test_amos_cases_from_500_are_mr() -> None:
    spec = load_spec("amos22")
    assert spec.case_modality("amos_0499") == "CT"
    assert spec.case_modality("amos_0500") == "MR"
    assert spec.case_modality("AMOS_0600") == "MR"
    for foreign in ("ct_0712", "patient_20240131", "0600"):
        assert spec.case_modality(foreign) == "CT"


def test_word_merges_the_femoral_heads() -> None:
    assert load_spec("word").label_merges == {16: 15}


@pytest.mark.parametrize(
    ("name", "case_id"),
    [("FLARE22_Tr_0001_0000.nii.gz", "FLARE22_Tr_0001"), ("a_0000.nii", "a"), ("plain.nii.gz", "plain")],
)
def test_flare_file_names_lose_their_channel(name: str, case_id: str) -> None:
    assert load_spec("flare22").case_id(name) == case_id


def test_amos_file_names_keep_their_number() -> None:
    assert load_spec("amos22").case_id("amos_0000.nii.gz") == "amos_0000"


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match="Did you mean 'amos22'"):
        load_spec("amos2")


def test_a_users_yaml_works_like_a_built_in_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\nclasses: [background, a, b]\ntail_classes: [b]\nspacing: [1, 1, 3]\n", encoding="utf-8"
    )
    spec = load_spec(str(path))
    assert spec.num_classes == 3
    assert spec.tail_classes == ("b",)
    assert spec.spacing == (1.0, 1.0, 3.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"clases": []}, "clases"),
        ({"tail_classes": ["livr"]}, "Did you mean 'liver'"),
        ({"classes": ["background", "liver", "liver"]}, "twice"),
        ({"label_merges": {5: 2}}, "label_merges"),
        ({"spacing": [1, 0, 1]}, r"spacing\.1: 0: should be greater"),
        ({"window": [10, -10]}, "window"),
        ({"modality": "PET"}, "modality"),
        ({"split": {"eval": 2.5}}, r"^x\.yaml: split\.eval: 2\.5 is neither a share[^\n]*$"),
        ({"split": {"eval": "Vb"}}, r"^x\.yaml: split\.eval: 'Vb' is not one of Va, Ts\. Did you mean 'Va'\?$"),
        ({"split": {"test": True}}, r"split\.test: True: should be a number"),
        ({"tail_classes": ["background"]}, "is the background"),
        ({"name": " "}, "name: is empty"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_spec({"name": "x", "classes": ["background", "liver"], **change}, "x.yaml")


def test_all_wrong_fields_are_named_together() -> None:
    with pytest.raises(InputError) as caught:
        parse_spec({"name": "x", "classes": ["background", "a"], "patch": [1, 2], "colour": "red"}, "x.yaml")
    assert len(caught.value.problems) == 2
    assert all(problem.startswith("x.yaml") for problem in caught.value.problems)


@pytest.mark.parametrize("folder", ["/etc", "../other", "a/../../b", "a\\..\\b", "C:\\x", "C:x", "", "a\nb"])
def test_folders_stay_inside_the_data_set(folder: str) -> None:
    with pytest.raises(InputError, match=r"folders\.train_images: .* must be a folder inside the data set"):
        parse_spec({"name": "x", "classes": ["background", "a"], "folders": {"train_images": folder}}, "x")
