"""From a raw folder to a description and a list of cases. AMOS, MSD (Decathlon) and nnU-Net v2 styles are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duomod.console import say
from duomod.datasets.spec import (
    DatasetSpec,
    Folders,
    Modality,
    Role,
    builtin_names,
    load_spec,
    parse_spec,
    without_ending,
)
from duomod.errors import InputError
from duomod.workspace import read_json

#: Where images and labels may lie in a data set without description of its own; the first that exists is taken.
_LAYOUTS = (
    Folders(),
    Folders(train_images="images", train_labels="labels"),
    Folders(
        train_images="train/images",
        train_labels="train/labels",
        val_images="val/images",
        val_labels="val/labels",
        test_images="test/images",
        test_labels="test/labels",
    ),
)

#: Suffix of the first channel in nnU-Net's naming.
_CHANNEL = "_0000"

#: A label that lies beside its image, as in ct_0001.nii.gz and ct_0001_label.nii.gz.
_LABEL_BESIDE = re.compile(r"_(label|seg|mask)$")


@dataclass(frozen=True)
class RawCase:
    """One scan on disk. ``role`` ``Un`` is a training case from the folder of unlabelled images."""

    case_id: str
    role: Role
    image: Path
    label: Path | None


@dataclass(frozen=True)
class _Described:
    """What a dataset.json says."""

    classes: tuple[str, ...]
    modality: Modality | None
    style: str
    channels: int


def resolve_spec(data_path: Path, dataset: str | None, num_classes: int | None) -> DatasetSpec:
    """Find the description of a raw data set.

    In this order: ``dataset`` (a built-in name or a YAML file); a built-in one with the classes of the folder's
    dataset.json; a built-in one with the folder's name; dataset.json alone; ``num_classes`` alone. What was recognised
    is said in a line.

    Args:
        data_path: Raw folder.
        dataset: Built-in name or path of a YAML file.
        num_classes: Number of classes that the user expects, background included.

    Raises:
        InputError: missing folder, unknown data set, unusable dataset.json, nothing known, or ``num_classes``
            contradicts what was found.
    """
    if not data_path.is_dir():
        raise InputError(f"{data_path}: folder not found; --data_path is the folder that holds imagesTr")
    index = data_path / "dataset.json"
    content = read_json(index) if index.is_file() else None
    if isinstance(content, dict) and "format" in content:
        raise InputError(f"{data_path}: already preprocessed; --data_path is the folder with the original scans")
    if dataset is not None:
        spec, source = load_spec(dataset), f"the data set description {dataset}"
    else:
        described = _describe(content, index) if content is not None else None
        spec, source = _recognise(data_path, described, num_classes)
    if num_classes is not None and num_classes != spec.num_classes:
        raise InputError(
            f"--num_classes {num_classes} disagrees with {source}, which has {spec.num_classes} classes, background"
            " included; correct one of them"
        )
    if spec.num_classes > 256:
        raise InputError(f"{source}: {spec.num_classes} classes; at most 256 can be stored")
    return _with_channel_suffix(spec, data_path, content)


def _recognise(data_path: Path, described: _Described | None, num_classes: int | None) -> tuple[DatasetSpec, str]:
    """Return a description and, in words, where it comes from; says a line about it."""
    index = data_path / "dataset.json"
    if described is not None:
        known = builtin_like(described.classes)
        if known is not None:
            say(f"{index}: {described.style} style, recognised as {known.name}")
            return known, f"{index} (recognised as {known.name})"
    named = _builtin_called(data_path.resolve().name)
    if named is not None and described is not None:
        # WORD lists the raw labels, one more than there are classes after the merge.
        fits = len(described.classes) in (named.num_classes, named.num_classes + len(named.label_merges))
        named = named if fits else None
    if named is not None:
        say(f"{data_path}: recognised as {named.name} by the folder's name")
        return named, f"the data set description {named.name} (recognised by the folder's name)"
    if described is not None:
        if described.channels > 1:
            raise InputError(f"{index}: {described.channels} channels; duomod reads one image channel per case")
        modality = described.modality or "CT"
        say(f"{index}: {described.style} style, {len(described.classes)} classes, {modality}")
        return _generic(data_path, described.classes, modality), str(index)
    if num_classes is None:
        what = "names no classes" if index.is_file() else "no dataset.json here, so the classes are unknown"
        raise InputError(
            f"{index if index.is_file() else data_path}: {what}; give --num_classes, or --dataset with one of"
            f" {', '.join(builtin_names())} or a YAML description"
        )
    if num_classes < 2:
        raise InputError(f"--num_classes {num_classes}: at least 2, background included")
    say(f"{data_path}: no description found; {num_classes} classes without names, taken for CT (--dataset changes it)")
    return _generic(data_path, numbered_classes(num_classes), "CT"), "--num_classes"


def numbered_classes(num_classes: int) -> tuple[str, ...]:
    """Return ``background, class_1, ...``."""
    return ("background", *(f"class_{label}" for label in range(1, num_classes)))


def _generic(data_path: Path, classes: tuple[str, ...], modality: Modality) -> DatasetSpec:
    folders = next((layout for layout in _LAYOUTS if (data_path / layout.train_images).is_dir()), Folders())
    facts = {
        "name": data_path.resolve().name or "dataset",
        "classes": classes,
        "folders": folders.model_dump(),
        "modality": modality,
    }
    return parse_spec(facts, str(data_path))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def builtin_like(classes: tuple[str, ...]) -> DatasetSpec | None:
    """Return the built-in description with these classes in this order.

    Names may differ in case and punctuation, and in up to a quarter of the places: AMOS's own dataset.json writes
    "arota" and "postcava".
    """
    for name in builtin_names():
        spec = load_spec(name)
        if len(spec.classes) == len(classes):
            same = sum(_plain(a) == _plain(b) for a, b in zip(spec.classes[1:], classes[1:], strict=True))
            if same >= 0.75 * (len(classes) - 1):
                return spec
    return None


def _builtin_called(folder: str) -> DatasetSpec | None:
    """The built-in description whose name, with or without its year, is the folder's."""
    for name in builtin_names():
        if _plain(folder) in (_plain(name), _plain(name).rstrip("0123456789")):
            return load_spec(name)
    return None


def _describe(content: Any, index: Path) -> _Described | None:
    """Read the content of a dataset.json; None if it names no classes.

    Raises:
        InputError: it names classes in a way that cannot be used.
    """
    if not isinstance(content, dict):
        return None
    labels, classes = content.get("labels"), content.get("classes")
    channels = content.get("channel_names", content.get("modality"))
    modality, count = _modality(channels)
    if isinstance(classes, list) and len(classes) > 1:
        return _Described(tuple(map(str, classes)), modality, "duomod", count)
    if not isinstance(labels, dict) or not labels:
        return None
    by_number = all(re.fullmatch(r"\d+", str(key)) for key in labels) and not all(
        isinstance(value, int) for value in labels.values()
    )
    style = "AMOS/MSD" if by_number else "nnU-Net v2"
    ending = content.get("file_ending", ".nii.gz")
    if ending not in (".nii.gz", ".nii"):
        raise InputError(f"{index}: file_ending '{ending}' is not read; convert the scans to .nii.gz")
    names = _by_number(labels, index) if by_number else _by_name(labels, index)
    names.setdefault(0, "background")
    if sorted(names) != list(range(len(names))):
        numbers = ", ".join(map(str, sorted(names)))
        raise InputError(f"{index}: label numbers must be 0, 1, 2, ... without gaps, found {numbers}")
    ordered = tuple(names[number] for number in range(len(names)))
    if len(set(ordered)) < len(ordered) or len(ordered) < 2:
        raise InputError(f"{index}: 'labels' needs at least two classes, each with a name of its own")
    return _Described(ordered, modality, style, count)


def _by_number(labels: Mapping[str, Any], index: Path) -> dict[int, str]:
    wrong = [key for key, value in labels.items() if not isinstance(value, str)]
    if wrong:
        raise InputError(f"{index}: label {wrong[0]} must have a name, found {labels[wrong[0]]!r}")
    # By number, not by text: "10" comes after "9".
    return {int(key): labels[key] for key in sorted(labels, key=int)}


def _by_name(labels: Mapping[str, Any], index: Path) -> dict[int, str]:
    problems: list[str] = []
    names: dict[int, str] = {}
    for name, number in labels.items():
        if isinstance(number, list):
            problems.append(
                f"{index}: class '{name}' is a region (labels {number}); duomod needs one number per class:"
                " write label maps with one value per structure and list those"
            )
        elif isinstance(number, bool) or not re.fullmatch(r"\d+", str(number)):
            problems.append(f"{index}: class '{name}' must have a number, found {number!r}")
        elif name == "ignore":
            problems.append(f"{index}: nnU-Net's 'ignore' label is not supported; relabel those voxels")
        elif int(number) in names:
            problems.append(f"{index}: classes '{names[int(number)]}' and '{name}' have the same number {number}")
        else:
            names[int(number)] = str(name)
    if problems:
        raise InputError(problems)
    return names


def _modality(channels: Any) -> tuple[Modality | None, int]:
    """Modality and number of channels from ``{"0": "CT"}``, ``["CT"]`` or ``"CT"``."""
    if isinstance(channels, dict):
        channels = list(channels.values())
    if isinstance(channels, str):
        channels = [channels]
    if not isinstance(channels, list) or not channels:
        return None, 1
    return ("CT" if str(channels[0]).strip().casefold() == "ct" else "MR"), len(channels)


def _nifti_files(folder: Path) -> list[Path]:
    """NIfTI files of a folder by name; none if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.name.endswith((".nii", ".nii.gz")) and not path.name.startswith(".")
    )


def _stem(path: Path) -> str:
    return without_ending(path.name)


def _with_channel_suffix(spec: DatasetSpec, data_path: Path, content: Any) -> DatasetSpec:
    """Add nnU-Net's ``_0000`` where the files have it although the description does not say so.

    A file name alone does not tell: ``amos_0000`` may be a whole case id. It is a suffix where dataset.json is
    nnU-Net's or where a label is named like an image without it.

    Raises:
        InputError: there are images of several channels.
    """
    images = {_stem(path) for path in _nifti_files(data_path / spec.folders.train_images)}
    labels = {_stem(path) for path in _nifti_files(data_path / spec.folders.train_labels)}
    is_nnunet = isinstance(content, dict) and "channel_names" in content
    by_label = any(label not in images and f"{label}{_CHANNEL}" in images for label in labels)
    by_content = is_nnunet and bool(images) and all(name.endswith(_CHANNEL) for name in images if name not in labels)
    if not spec.image_suffix and (by_label or (by_content and not images & labels)):
        spec = spec.model_copy(update={"image_suffix": _CHANNEL})
        say(f"{data_path}: image names end in {_CHANNEL} (nnU-Net); case ids are without it")
    if spec.image_suffix == _CHANNEL:
        further = sorted(
            name for name in images if re.search(r"_000[1-9]$", name) and f"{name[:-5]}{_CHANNEL}" in images
        )
        if further:
            raise InputError(
                f"{data_path / spec.folders.train_images}: several channels per case ({further[0]} beside"
                f" {further[0][:-5]}{_CHANNEL}); duomod reads one channel: keep only the {_CHANNEL} files"
            )
    return spec


def find_cases(data_path: Path, spec: DatasetSpec) -> list[RawCase]:
    """List the cases of a raw folder, by role and id (see :func:`list_cases`).

    Raises:
        InputError: all that is wrong: missing or empty folder, label without image, an id that occurs twice.
    """
    cases, problems = list_cases(data_path, spec)
    if problems:
        raise InputError(problems)
    return cases


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
        beside = _nifti_files(data_path)
        if beside:
            is_label = {path: bool(_LABEL_BESIDE.search(_stem(path))) for path in beside}
            images = [path for path in beside if not is_label[path]]
            labels = {_LABEL_BESIDE.sub("", _stem(path)): path for path in beside if is_label[path]}
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
    if not _nifti_files(training):
        problems.append(f"{training}: no .nii.gz file in this folder; put the training images there")
    for role, image_folder, label_folder in pairs:
        images = _nifti_files(data_path / image_folder)
        label_files = _nifti_files(data_path / label_folder) if label_folder else []
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
