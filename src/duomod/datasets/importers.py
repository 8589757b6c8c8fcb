"""From a raw folder to a list of cases. AMOS, MSD (Decathlon) and nnU-Net v2 layouts are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from duomod.console import say
from duomod.datasets.case_names import case_id, is_nifti
from duomod.datasets.spec import DatasetSpec, Role
from duomod.errors import InputError

#: A label that lies beside its image, as in ct_0001.nii.gz and ct_0001_label.nii.gz.
_LABEL_BESIDE = re.compile(r"_(label|seg|mask)$")


@dataclass(frozen=True)
class RawCase:
    """One scan on disk. ``role`` ``Un`` is a training case from the folder of unlabelled images."""

    case_id: str
    role: Role
    image: Path
    label: Path | None


def nifti_files(folder: Path) -> list[Path]:
    """NIfTI files of a folder by name; none if there is no such folder."""
    return sorted(path for path in folder.iterdir() if is_nifti(path)) if folder.is_dir() else []


def list_cases(data_path: Path, spec: DatasetSpec) -> tuple[list[RawCase], list[str]]:
    """List the cases of a raw folder, by role and id, and what is wrong with the folder.

    A training image without label is an unlabelled case. Scans that lie directly in ``data_path``, with labels beside
    them as ``<case>_label.nii.gz``, are training cases.

    Raises:
        InputError: there is no folder with training images.
    """
    if not data_path.is_dir():
        raise InputError(f"{data_path}: folder not found")
    names = spec.folders
    training = data_path / names.train_images
    if not training.is_dir():
        beside = nifti_files(data_path)
        if beside:
            is_label = {path: bool(_LABEL_BESIDE.search(case_id(path.name))) for path in beside}
            images = [path for path in beside if not is_label[path]]
            labels = {_LABEL_BESIDE.sub("", case_id(path.name)): path for path in beside if is_label[path]}
            series = sorted(name for name in labels if (data_path / name).is_dir())
            for name in series:
                say(f"{data_path / name}: a folder, not a NIfTI file; it and its label are left out")
                del labels[name]
            cases, problems = _paired(images, labels, "Tr", spec, data_path)
            return _unique(cases, problems)
        if not any(data_path.iterdir()):
            raise InputError(f"{data_path}: the folder is empty; it should hold {names.train_images}")
        raise InputError(
            f"{data_path}: no folder {names.train_images}; --data_path is the folder that holds it, and --dataset"
            " names a description with other folders"
        )
    pairs: list[tuple[Role, str, str | None]] = [
        ("Tr", names.train_images, names.train_labels),
        ("Un", names.unlabeled_images, None),
        ("Va", names.val_images, names.val_labels),
        ("Ts", names.test_images, names.test_labels),
    ]
    cases, problems = [], []
    if not nifti_files(training):
        problems.append(f"{training}: no .nii.gz file in this folder; put the training images there")
    for role, image_folder, label_folder in pairs:
        images = nifti_files(data_path / image_folder)
        label_files = nifti_files(data_path / label_folder) if label_folder else []
        labels = {spec.case_id(path.name): path for path in label_files}
        found, wrong = _paired(images, labels, role, spec, data_path / image_folder)
        cases += found
        problems += wrong
    return _unique(cases, problems)


def _paired(
    images: list[Path], labels: Mapping[str, Path], role: Role, spec: DatasetSpec, folder: Path
) -> tuple[list[RawCase], list[str]]:
    cases = [RawCase(spec.case_id(path.name), role, path, labels.get(spec.case_id(path.name))) for path in images]
    orphans = sorted(labels.keys() - {case.case_id for case in cases})
    return cases, [
        f"{labels[case_id]}: a label without its image (no {case_id}{spec.image_suffix}.nii.gz in {folder});"
        " add the image or remove the label"
        for case_id in orphans
    ]


def _unique(cases: list[RawCase], problems: list[str]) -> tuple[list[RawCase], list[str]]:
    """Only the first case of each id, and the problems, with a sentence about every other one."""
    first: dict[str, RawCase] = {}
    repeated = []
    for case in cases:
        other = first.setdefault(case.case_id, case)
        if other is not case:
            repeated.append(f"{case.image}: the case id {case.case_id} is also that of {other.image}; rename one")
    return list(first.values()), problems + repeated
