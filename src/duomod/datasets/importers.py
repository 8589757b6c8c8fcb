"""From a raw folder to a list of cases. AMOS, MSD (Decathlon) and nnU-Net v2 layouts are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from duomod.console import say
from duomod.datasets.folder import Content, content, listed, without_suffix
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


def list_cases(data_path: Path, spec: DatasetSpec) -> tuple[list[RawCase], list[str]]:
    """List the cases of a raw folder, by role and id, and what is wrong with the folder.

    A training image without label is an unlabelled case. Scans that lie directly in ``data_path``, with labels beside
    them as ``<case>_label.nii.gz``, are training cases. Of every folder it is said what is not read.

    Raises:
        InputError: there is no folder with training images.
    """
    if not data_path.is_dir():
        raise InputError(f"{data_path}: folder not found")
    names = spec.folders
    top = content(data_path)
    if not (data_path / names.train_images).is_dir():
        if top.files:
            return _beside(content(data_path, spec.image_suffix), spec)
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
    cases: list[RawCase] = []
    problems: list[str] = []
    for role, image_folder, label_folder in pairs:
        images = content(data_path / image_folder, spec.image_suffix)
        labels = content(data_path / label_folder) if label_folder else Content(data_path, {})
        problems += _say_and_check(images) + _say_and_check(labels)
        if role == "Tr" and not (images.files or images.problems):
            problems.append(f"{images.folder}: no .nii.gz file in this folder; put the training images there")
        found, wrong = _paired(images.files, labels.files, role, spec, images.folder)
        cases += found
        problems += wrong
    _say_left_out(top, [folder for _, *two in pairs for folder in two if folder])
    return _unique(cases, problems)


def _beside(top: Content, spec: DatasetSpec) -> tuple[list[RawCase], list[str]]:
    """The cases of a folder where labels lie beside their images."""
    problems = _say_and_check(top)
    images = {case: path for case, path in top.files.items() if not _is_label(case)}
    labels = {_LABEL_BESIDE.sub("", case): path for case, path in top.files.items() if _is_label(case)}
    for name in sorted(name for name in labels if (top.folder / name).is_dir()):
        say(f"{top.folder / name}: a folder, not a NIfTI file; it and its label are left out")
        del labels[name]
    cases, wrong = _paired(images, labels, "Tr", spec, top.folder)
    return _unique(cases, problems + wrong)


def _is_label(case: str) -> bool:
    return bool(_LABEL_BESIDE.search(case))


def _say_and_check(found: Content) -> list[str]:
    """Say what is read of a folder; return what is wrong with it."""
    if found.total or found.unread:
        say(found.summary)
    return list(found.problems)


def _say_left_out(top: Content, read: list[str]) -> None:
    """Say which scans beside the folders that are read, and in other folders, are not."""
    first = {PurePath(folder).parts[0] for folder in read}
    left = [name for name in top.unread if name.endswith(")") and name.partition("/")[0] not in first]
    left += [path.name for path in top.files.values()]
    if left:
        say(f"{top.folder}: not read: {listed(left)}")


def _paired(
    images: Mapping[str, Path], labels: Mapping[str, Path], role: Role, spec: DatasetSpec, folder: Path
) -> tuple[list[RawCase], list[str]]:
    labels = without_suffix(labels, images, spec.image_suffix)
    cases = [RawCase(case, role, path, labels.get(case)) for case, path in images.items()]
    return cases, [
        f"{path}: a label without its image (no {case}{spec.image_suffix}.nii.gz in {folder}); add the image or remove"
        " the label"
        for case, path in sorted(labels.items())
        if case not in images
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
