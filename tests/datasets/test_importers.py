"""Raw folders of every layout and style become the right cases and classes. The files themselves are never read."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from duomod.datasets.importers import RawCase, list_cases
from duomod.datasets.recognise import resolve_spec
from duomod.datasets.spec import DatasetSpec, Folders, load_spec, parse_spec
from duomod.errors import InputError

AMOS_AS_PUBLISHED = [
    "background", "spleen", "right kidney", "left kidney", "gall bladder", "esophagus", "liver", "stomach", "arota",
    "postcava", "pancreas", "right adrenal gland", "left adrenal gland", "duodenum", "bladder", "prostate/uterus",
]  # fmt: skip


def raw(folder: Path, files: str, description: object = None) -> Path:
    """Make empty files, and a dataset.json if there is a description."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in files.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    if description is not None:
        (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


def numbered(names: list[str]) -> dict[str, Any]:
    # Out of order on purpose, as text sorts it: "10" before "9".
    return {"labels": dict(sorted((str(i), n) for i, n in enumerate(names))), "modality": {"0": "CT"}}


def good_cases(folder: Path, spec: DatasetSpec) -> list[RawCase]:
    cases, problems = list_cases(folder, spec)
    assert problems == []
    return cases


class TestCases:
    def test_roles_and_labels_follow_the_folders(self, tmp_path: Path) -> None:
        raw(
            tmp_path,
            "imagesTr/a.nii.gz labelsTr/a.nii.gz imagesTr/b.nii.gz imagesUn/c.nii.gz imagesVa/d.nii.gz"
            " labelsVa/d.nii.gz imagesTs/e.nii.gz imagesTr/.hidden.nii.gz imagesTr/notes.txt",
        )
        cases = good_cases(tmp_path, load_spec("amos22"))
        assert [(c.case_id, c.role, c.label is not None) for c in cases] == [
            ("a", "Tr", True), ("b", "Tr", False), ("c", "Un", False), ("d", "Va", True), ("e", "Ts", False),
        ]  # fmt: skip

    def test_nested_folders(self, tmp_path: Path) -> None:
        raw(tmp_path, "train/images/a.nii.gz train/labels/a.nii.gz test/images/b.nii.gz test/labels/b.nii.gz")
        cases = good_cases(tmp_path, load_spec("la"))
        assert [(c.case_id, c.role) for c in cases] == [("a", "Tr"), ("b", "Va")]

    def test_word_validates_in_its_own_folder(self, tmp_path: Path) -> None:
        raw(tmp_path, "imagesTr/a.nii.gz imagesVal/b.nii.gz labelsVal/b.nii.gz")
        assert [c.role for c in good_cases(tmp_path, load_spec("word"))] == ["Tr", "Va"]

    def test_flare_suffix_matches_labels_without_it(self, tmp_path: Path) -> None:
        raw(tmp_path, "imagesTr/F_0001_0000.nii.gz labelsTr/F_0001.nii.gz imagesTr/F_0002_0000.nii.gz")
        cases = good_cases(tmp_path, load_spec("flare22"))
        assert [(c.case_id, c.label is not None) for c in cases] == [("F_0001", True), ("F_0002", False)]

    def test_scans_beside_their_labels(self, tmp_path: Path) -> None:
        raw(tmp_path, "ct_0001.nii.gz ct_0001_label.nii.gz ct_0002.nii.gz series_label.nii.gz series/1.dcm")
        cases = good_cases(tmp_path, load_spec("amos22"))
        assert [(c.case_id, c.label is not None) for c in cases] == [("ct_0001", True), ("ct_0002", False)]

    def test_scans_beside_their_labels_with_a_suffix(self, tmp_path: Path) -> None:
        raw(tmp_path, "a_0000.nii.gz a_label.nii.gz b.nii.gz b_0000.nii.gz _0000.nii.gz")
        cases, problems = list_cases(tmp_path, load_spec("flare22"))
        assert [(c.case_id, c.label is not None) for c in cases] == [("a", True), ("b", False)]
        assert len(problems) == 2
        assert any("2 files of the case b: b.nii.gz, b_0000.nii.gz" in text for text in problems)
        assert any("it is empty" in text for text in problems)

    def test_a_label_without_image_and_a_repeated_id_are_reported_together(self, tmp_path: Path) -> None:
        raw(
            tmp_path,
            "imagesTr/a.nii.gz labelsTr/lost.nii.gz imagesVa/a.nii.gz imagesUn/a.nii.gz labelsVa/astray.nii.gz",
        )
        cases, problems = list_cases(tmp_path, load_spec("amos22"))
        assert [case.case_id for case in cases] == ["a"]
        text = "\n".join(problems)
        assert len(problems) == 4
        for words in (
            "lost.nii.gz: a label without its image",
            "astray.nii.gz",
            "imagesVa/a.nii.gz",
            "imagesUn/a.nii.gz",
        ):
            assert words in text

    @pytest.mark.parametrize(("files", "words"), [("", "empty"), ("other/a.nii.gz", "no folder imagesTr")])
    def test_nothing_to_read_is_an_error(self, tmp_path: Path, files: str, words: str) -> None:
        with pytest.raises(InputError, match=words):
            list_cases(raw(tmp_path, files), load_spec("amos22"))

    def test_no_scan_among_the_training_images_is_a_problem(self, tmp_path: Path) -> None:
        (problem,) = list_cases(raw(tmp_path, "imagesTr/readme.txt"), load_spec("amos22"))[1]
        assert "no .nii.gz file" in problem

    def test_the_image_suffix_belongs_to_names_of_images(self, tmp_path: Path) -> None:
        """Cases p_0000 and p_0001 of an nnU-Net set: their label maps are called so, too."""
        images = "imagesTr/p_0000_0000.nii.gz imagesTr/p_0001_0000.nii.gz imagesTr/q_0000.nii.gz"
        raw(tmp_path, f"{images} labelsTr/p_0000.nii.gz labelsTr/p_0001.nii.gz labelsTr/q_0000.nii.gz")
        cases = good_cases(tmp_path, load_spec("flare22"))
        labels = {case.case_id: case.label.name for case in cases if case.label is not None}
        assert labels == {"p_0000": "p_0000.nii.gz", "p_0001": "p_0001.nii.gz", "q": "q_0000.nii.gz"}

    def test_what_is_not_read_is_said(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        files = "imagesTr/a.nii.gz imagesTr/b.NII.GZ imagesTr/._a.nii.gz imagesTr/old/c.nii.gz labelsTr/b.nrrd"
        raw(tmp_path, f"{files} imagesTs2/d.nii.gz astray.nii.gz labelsTr/readme.txt")
        cases = good_cases(tmp_path, load_spec("amos22"))
        assert [(c.case_id, c.label is not None) for c in cases] == [("a", False), ("b", True)]
        assert capsys.readouterr().err.splitlines() == [
            f"{tmp_path}/imagesTr: 3 files, 2 used; not read: ._a.nii.gz, old/ (1 scan)",
            f"{tmp_path}/labelsTr: 2 files, 1 used; not read: readme.txt",
            f"{tmp_path}: not read: imagesTs2/ (1 scan), astray.nii.gz",
        ]

    def test_two_label_maps_of_one_case_are_a_problem(self, tmp_path: Path) -> None:
        raw(tmp_path, "imagesTr/a.nii.gz labelsTr/a.nii.gz labelsTr/a.nii")
        (problem,) = list_cases(tmp_path, load_spec("amos22"))[1]
        assert "labelsTr: 2 files of the case a: a.nii, a.nii.gz" in problem

    def test_accents_written_in_two_ways_meet(self, tmp_path: Path) -> None:
        name = "M\u00fcller.nii.gz"
        raw(tmp_path, f"imagesTr/{unicodedata.normalize('NFD', name)} labelsTr/{name}")
        (case,) = good_cases(tmp_path, load_spec("amos22"))
        assert (case.case_id, case.label is not None) == ("M\u00fcller", True)

    def test_ids_with_dots_endings_and_numbers_meet_their_labels(self, tmp_path: Path) -> None:
        raw(tmp_path, "imagesTr/a.1.nii.gz imagesTr/b.nii imagesTr/c_0000.nii labelsTr/a.1.nii labelsTr/b.nii.gz")
        cases = good_cases(tmp_path, load_spec("amos22"))
        assert [(c.case_id, c.label is not None) for c in cases] == [("a.1", True), ("b", True), ("c_0000", False)]


class TestDescription:
    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="folder not found"):
            resolve_spec(tmp_path / "nowhere", None, None)

    def test_amos_is_recognised_by_its_classes_misspelt_as_published(self, tmp_path: Path) -> None:
        folder = raw(tmp_path / "anything", "imagesTr/amos_0001.nii.gz", numbered(AMOS_AS_PUBLISHED))
        assert resolve_spec(folder, None, 16) == load_spec("amos22")

    def test_a_built_in_set_is_recognised_by_the_folders_name(self, tmp_path: Path) -> None:
        assert resolve_spec(raw(tmp_path / "AMOS22", "imagesTr/a.nii.gz"), None, None).name == "amos22"
        assert resolve_spec(raw(tmp_path / "WORD", "imagesTr/a.nii.gz"), None, None).name == "word"

    def test_word_lists_its_raw_labels(self, tmp_path: Path) -> None:
        names = ["background", *(f"part {i}" for i in range(1, 17))]
        assert resolve_spec(raw(tmp_path / "word", "imagesTr/a.nii.gz", numbered(names)), None, 16).name == "word"

    def test_a_folders_name_does_not_overrule_its_own_classes(self, tmp_path: Path) -> None:
        folder = raw(tmp_path / "AMOS22", "imagesTr/a.nii.gz", numbered(["background", "tumour"]))
        assert resolve_spec(folder, None, None).classes == ("background", "tumour")

    def test_a_folders_name_does_not_overrule_as_many_classes_of_its_own(self, tmp_path: Path) -> None:
        names = ["background", *(f"part {i}" for i in range(1, 16))]
        folder = raw(tmp_path / "AMOS22", "imagesTr/a.nii.gz", numbered(names))
        assert resolve_spec(folder, None, None).classes == tuple(names)

    def test_the_classes_in_another_order_are_another_set(self, tmp_path: Path) -> None:
        names = [*AMOS_AS_PUBLISHED]
        names[2], names[3] = names[3], names[2]
        folder = raw(tmp_path / "AMOS22", "imagesTr/a.nii.gz", numbered(names))
        assert resolve_spec(folder, None, None).classes == tuple(names)

    @pytest.mark.parametrize(
        ("name", "classes"),
        [("hippocampus", ["background", "Anterior", "Posterior"]), ("la", ["background", "left atrium"])],
    )
    @pytest.mark.parametrize("by_number", [True, False])
    @pytest.mark.parametrize("dataset", [None, "itself"])
    def test_known_classes_may_lie_in_any_layout(
        self, tmp_path: Path, name: str, classes: list[str], by_number: bool, dataset: str | None
    ) -> None:
        """The Decathlon's tasks 4 and 2, and the same as nnU-Net has them."""
        labels = {str(i): n for i, n in enumerate(classes)} if by_number else {n: i for i, n in enumerate(classes)}
        files = (
            "imagesTr/a_0000.nii.gz imagesTr/b_0000.nii.gz labelsTr/a.nii.gz labelsTr/b.nii.gz imagesTs/c_0000.nii.gz"
        )
        if by_number:
            files = files.replace("_0000", "")
        described = {"labels": labels, "channel_names" if not by_number else "modality": {"0": "MRI"}}
        folder = raw(tmp_path / "TaskXX", files, described)
        spec = resolve_spec(folder, name if dataset else None, None)
        assert (spec.name, spec.modality) == (name, "MR")
        assert [(c.case_id, c.role, c.label is not None) for c in good_cases(folder, spec)] == [
            ("a", "Tr", True), ("b", "Tr", True), ("c", "Ts", False),
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("classes", "modality"), [(AMOS_AS_PUBLISHED, "MR"), (["background", "left atrium"], "CT")]
    )
    def test_known_classes_do_not_decide_the_modality(
        self, tmp_path: Path, classes: list[str], modality: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        described = {**numbered(classes), "modality": {"0": modality}}
        spec = resolve_spec(raw(tmp_path / "x", "imagesTr/a_0007.nii.gz", described), None, None)
        assert (spec.modality, spec.case_modality("a_0007"), spec.case_modality("a_0700")) == (modality,) * 3
        assert f"all scans are taken for {modality}" in capsys.readouterr().err

    def test_no_folder_is_taken_for_two_parts(self, tmp_path: Path) -> None:
        files = "train/images/a.nii.gz train/labels/a.nii.gz test/images/b.nii.gz test/labels/b.nii.gz"
        described = {**numbered(["background", "left atrium"]), "modality": {"0": "MRI"}}
        spec = resolve_spec(raw(tmp_path / "x", files, described), None, None)
        assert spec == load_spec("la")
        other = resolve_spec(raw(tmp_path / "y", files, numbered(["background", "tumour"])), None, None)
        assert [(c.case_id, c.role) for c in good_cases(tmp_path / "y", other)] == [("a", "Tr"), ("b", "Ts")]

    def test_a_users_own_description_says_where_the_files_lie(self, tmp_path: Path) -> None:
        (tmp_path / "my.yaml").write_text("{name: x, classes: [background, a], folders: {train_images: ct}}")
        folder = raw(tmp_path / "x", "imagesTr/a.nii.gz")
        with pytest.raises(InputError, match="no folder ct"):
            list_cases(folder, resolve_spec(folder, str(tmp_path / "my.yaml"), None))

    def test_a_format_of_others_is_no_preprocessed_set(self, tmp_path: Path) -> None:
        described = {**numbered(["background", "tumour"]), "format": "NIfTI"}
        assert resolve_spec(raw(tmp_path / "x", "imagesTr/a.nii.gz", described), None, None).num_classes == 2

    def test_keys_are_sorted_by_number(self, tmp_path: Path) -> None:
        names = ["background", *(f"part {i}" for i in range(1, 13))]
        folder = raw(tmp_path / "x", "imagesTr/a.nii.gz", numbered(names))
        assert resolve_spec(folder, None, None).classes == tuple(names)

    def test_nnunet_style_and_its_file_names(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        names = {"background": 0, "lesion": 2, "organ": 1}
        description = {"labels": names, "channel_names": {"0": "T2"}, "file_ending": ".nii.gz", "numTraining": 2}
        folder = raw(tmp_path / "x", "imagesTr/a_0000.nii.gz imagesTr/b_0000.nii.gz labelsTr/a.nii.gz", description)
        spec = resolve_spec(folder, None, None)
        assert spec.classes == ("background", "organ", "lesion")
        assert spec.modality == "MR"
        assert [c.case_id for c in good_cases(folder, spec)] == ["a", "b"]
        assert "nnU-Net v2 style" in capsys.readouterr().err

    def test_nnunet_names_are_understood_with_a_chosen_description(self, tmp_path: Path) -> None:
        folder = raw(tmp_path / "x", "imagesTr/a_0000.nii.gz labelsTr/a.nii.gz")
        assert resolve_spec(folder, "amos22", None).image_suffix == "_0000"

    def test_numbers_of_cases_are_not_taken_for_channels(self, tmp_path: Path) -> None:
        files = (
            "imagesTr/amos_0000.nii.gz imagesTr/amos_0001.nii.gz labelsTr/amos_0000.nii.gz labelsTr/amos_0001.nii.gz"
        )
        folder = raw(tmp_path / "AMOS22", files)
        spec = resolve_spec(folder, None, None)
        assert [c.case_id for c in good_cases(folder, spec)] == ["amos_0000", "amos_0001"]

    def test_several_channels_are_refused(self, tmp_path: Path) -> None:
        one = {"labels": {"background": 0, "organ": 1}, "channel_names": {"0": "T1"}}
        files = "imagesTr/a_0000.nii.gz imagesTr/a_0001.nii.gz labelsTr/a.nii.gz"
        with pytest.raises(InputError, match="several channels"):
            resolve_spec(raw(tmp_path / "x", files, one), None, None)
        two = {"labels": {"background": 0, "organ": 1}, "channel_names": {"0": "T1", "1": "T2"}}
        with pytest.raises(InputError, match="2 channels"):
            resolve_spec(raw(tmp_path / "y", "imagesTr/a_0000.nii.gz", two), None, None)

    def test_without_any_description_the_classes_are_numbered(self, tmp_path: Path) -> None:
        spec = resolve_spec(raw(tmp_path / "x", "images/a.nii.gz labels/a.nii.gz"), None, 3)
        assert spec.classes == ("background", "class_1", "class_2")
        assert spec.folders.train_images == "images"

    def test_nothing_known_is_an_error_that_says_what_to_give(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="--num_classes"):
            resolve_spec(raw(tmp_path / "x", "imagesTr/a.nii.gz"), None, None)

    @pytest.mark.parametrize("dataset", [None, "amos22"])
    def test_a_disagreeing_number_of_classes_names_both(self, tmp_path: Path, dataset: str | None) -> None:
        folder = raw(tmp_path / "x", "imagesTr/a.nii.gz", numbered(AMOS_AS_PUBLISHED))
        with pytest.raises(InputError, match=r"14.*16 classes"):
            resolve_spec(folder, dataset, 14)

    @pytest.mark.parametrize(
        ("labels", "words"),
        [
            ({"background": 0, "whole": [1, 2], "core": [2]}, "'whole' is a region"),
            ({"background": 0, "a": 1, "b": 3}, "without gaps"),
            ({"background": 0, "a": 1, "b": 1}, "same number"),
            ({"background": 0, "a": 1, "ignore": 2}, "ignore"),
            ({"0": "background", "1": 7}, "must have a name"),
            ({"0": "background", "1": "a", "2": "a"}, "name of its own"),
        ],
    )
    def test_unusable_labels_are_explained(self, tmp_path: Path, labels: dict[str, Any], words: str) -> None:
        with pytest.raises(InputError, match=words):
            resolve_spec(raw(tmp_path / "x", "imagesTr/a.nii.gz", {"labels": labels}), None, None)

    def test_a_preprocessed_folder_is_not_raw(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="already preprocessed"):
            resolve_spec(raw(tmp_path / "x", "", {"format": "duomod-preprocessed-1"}), None, None)

    def test_a_broken_dataset_json(self, tmp_path: Path) -> None:
        folder = raw(tmp_path / "x", "imagesTr/a.nii.gz")
        (folder / "dataset.json").write_text("{", encoding="utf-8")
        with pytest.raises(InputError, match="not a valid JSON"):
            resolve_spec(folder, None, 2)

    def test_own_folders_in_a_users_description(self, tmp_path: Path) -> None:
        spec = parse_spec(
            {"name": "x", "classes": ["background", "a"], "folders": {"train_images": "ct", "train_labels": "seg"}}, "x"
        )
        assert isinstance(spec.folders, Folders)
        cases = good_cases(raw(tmp_path, "ct/a.nii.gz seg/a.nii.gz"), spec)
        assert [(c.case_id, c.label is not None) for c in cases] == [("a", True)]
