"""Which data set a raw folder holds: said by the user, told by its dataset.json, or by the folder's name."""

from __future__ import annotations

import re
from pathlib import Path

from duomod.console import say
from duomod.datasets.case_names import CHANNEL, SCAN_ENDINGS, shown
from duomod.datasets.folder import content
from duomod.datasets.index import Index, read_index
from duomod.datasets.labels import MOST_CLASSES
from duomod.datasets.spec import (
    DatasetSpec,
    Folders,
    Modality,
    builtin_names,
    is_builtin,
    load_spec,
    numbered_classes,
    parse_spec,
)
from duomod.errors import InputError

#: Where images and labels of a part may lie in a data set whose description does not say it or is not the user's own.
#: The description's own folders come first, then the first of these that exists.
_IMAGES_AND_LABELS: dict[str, tuple[tuple[str, str], ...]] = {
    "train": (("imagesTr", "labelsTr"), ("images", "labels"), ("train/images", "train/labels")),
    "val": (("imagesVa", "labelsVa"), ("imagesVal", "labelsVal"), ("val/images", "val/labels")),
    "test": (("imagesTs", "labelsTs"), ("test/images", "test/labels")),
}


def resolve_spec(data_path: Path, dataset: str | None, num_classes: int | None) -> DatasetSpec:
    """Find the description of a raw data set.

    In this order: ``dataset`` (a built-in name or a YAML file); a built-in one with the classes of the folder's
    dataset.json; dataset.json alone; a built-in one with the folder's name; ``num_classes`` alone. What was recognised
    is said in a line. Where the files lie is another question: a built-in description takes the folders that there are.

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
    path = data_path / "dataset.json"
    index = read_index(path) if path.is_file() else Index()
    if index.preprocessed:
        raise InputError(f"{data_path}: already preprocessed; --data_path is the folder with the original scans")
    if dataset is not None:
        spec, source = load_spec(dataset), f"the data set description {dataset}"
    else:
        _check_index(index, path)
        spec, source = _recognise(data_path, index, num_classes)
    if dataset is None or is_builtin(dataset):
        spec = _as_laid_out(spec, data_path)
    if num_classes is not None and num_classes != spec.num_classes:
        raise InputError(
            f"--num_classes {num_classes} disagrees with {source}, which has {spec.num_classes} classes, background"
            " included; correct one of them"
        )
    if spec.num_classes > MOST_CLASSES:
        raise InputError(f"{source}: {spec.num_classes} classes; at most {MOST_CLASSES} can be stored")
    return _with_channel_suffix(spec, data_path, index)


def _check_index(index: Index, path: Path) -> None:
    """Refuse what a dataset.json announces and preprocessing cannot do.

    Raises:
        InputError: classes that cannot be used, a label to ignore, files of another kind.
    """
    problems = list(index.problems)
    if index.ignored is not None:
        problems.append(f"{path}: nnU-Net's 'ignore' label is not supported; relabel those voxels ({index.ignored})")
    if index.classes and index.file_ending.lower() not in SCAN_ENDINGS:
        problems.append(f"{path}: file_ending '{shown(index.file_ending)}' is not read; convert the scans to .nii.gz")
    if problems:
        raise InputError(problems)


def _recognise(data_path: Path, index: Index, num_classes: int | None) -> tuple[DatasetSpec, str]:
    """Return a description and, in words, where it comes from; says a line about it."""
    path = data_path / "dataset.json"
    known = recognised(data_path, index.classes)
    if known is not None:
        spec, by_classes = known
        spec = _with_modality(spec, index, path)
        if by_classes:
            say(f"{path}: {index.style} style, recognised as {spec.name}")
            return spec, f"{path} (recognised as {spec.name})"
        say(f"{data_path}: recognised as {spec.name} by the folder's name")
        return spec, f"the data set description {spec.name} (recognised by the folder's name)"
    if index.classes:
        if index.channels > 1:
            raise InputError(f"{path}: {index.channels} channels; duomod reads one image channel per case")
        modality = index.modality or "CT"
        how = modality if index.modality else "taken for CT, because it names no modality (--dataset changes it)"
        say(f"{path}: {index.style} style, {len(index.classes)} classes, {how}")
        return _generic(data_path, index.classes, modality), str(path)
    if num_classes is None:
        there = path.is_file()
        what = "names no classes" if there else "no dataset.json here, so the classes are unknown"
        raise InputError(
            f"{path if there else data_path}: {what}; give --num_classes, or --dataset with one of"
            f" {', '.join(builtin_names())} or a YAML description"
        )
    if num_classes < 2:
        raise InputError(f"--num_classes {num_classes}: at least 2, background included")
    say(f"{data_path}: no description found; {num_classes} classes without names, taken for CT (--dataset changes it)")
    return _generic(data_path, numbered_classes(num_classes), "CT"), "--num_classes"


def _with_modality(spec: DatasetSpec, index: Index, path: Path) -> DatasetSpec:
    """A recognised description with the modality that the data's own dataset.json names, if it is another one."""
    if index.modality in (None, spec.modality):
        return spec
    say(f"{path}: {index.modality}, although {spec.name} is {spec.modality}; all scans are taken for {index.modality}")
    return spec.model_copy(update={"modality": index.modality, "modality_rules": ()})


def _generic(data_path: Path, classes: tuple[str, ...], modality: Modality) -> DatasetSpec:
    facts = {"name": data_path.resolve().name or "dataset", "classes": classes, "modality": modality}
    return parse_spec(facts, str(data_path))


def _as_laid_out(spec: DatasetSpec, data_path: Path) -> DatasetSpec:
    """The description with the folders that exist, where its own do not; no folder is taken for two parts."""
    own = spec.folders.model_dump()
    taken = {folder for folder in own.values() if (data_path / folder).is_dir()}
    found: dict[str, str] = {}
    for part, layouts in _IMAGES_AND_LABELS.items():
        images, labels = f"{part}_images", f"{part}_labels"
        if own[images] in taken:
            continue
        there = next((pair for pair in layouts if (data_path / pair[0]).is_dir() and pair[0] not in taken), None)
        if there is not None:
            found |= {images: there[0], labels: there[1]}
            taken |= set(there)
    if not found:
        return spec
    if found.get("train_images", own["train_images"]) != own["train_images"]:
        say(f"{data_path}: images are in {found['train_images']}, labels in {found['train_labels']}")
    return spec.model_copy(update={"folders": Folders(**(own | found))})


def recognised(folder: Path, classes: tuple[str, ...] = ()) -> tuple[DatasetSpec, bool] | None:
    """Find the built-in description of the data set in a folder.

    Args:
        folder: Its name counts, with or without a year, where no classes are named; or where there are as many as the
            description has with those that it merges: WORD lists the raw labels, one more than there are classes.
        classes: Names in its dataset.json; none where there is none.

    Returns:
        The description, and whether it was found by the classes (else by the name); None if there is none.
    """
    known = _builtin_like(classes) if classes else None
    if known is not None:
        return known, True
    named = _builtin_called(folder.resolve().name)
    if named is None or (classes and (not named.label_merges or len(classes) != _raw_labels(named))):
        return None
    return named, False


def _raw_labels(spec: DatasetSpec) -> int:
    return spec.num_classes + len(spec.label_merges)


def _builtin_like(classes: tuple[str, ...]) -> DatasetSpec | None:
    """The built-in description with these classes in this order.

    Names may differ in case and punctuation, and in up to a quarter of the places: AMOS's own dataset.json writes
    "arota" and "postcava". One that stands where another class of the description belongs is another data set.
    """
    given = [_plain(name) for name in classes[1:]]
    for name in builtin_names():
        spec = load_spec(name)
        own = [_plain(name) for name in spec.classes[1:]]
        if len(own) != len(given):
            continue
        differing = [theirs for ours, theirs in zip(own, given, strict=True) if ours != theirs]
        if len(differing) <= 0.25 * len(own) and not set(differing) & set(own):
            return spec
    return None


def _builtin_called(folder: str) -> DatasetSpec | None:
    """The built-in description whose name, with or without its year, is the folder's."""
    for name in builtin_names():
        if _plain(folder) in (_plain(name), _plain(name).rstrip("0123456789")):
            return load_spec(name)
    return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _with_channel_suffix(spec: DatasetSpec, data_path: Path, index: Index) -> DatasetSpec:
    """Add nnU-Net's ``_0000`` where the files have it although the description does not say so.

    A file name alone does not tell: ``amos_0000`` may be a whole case id. It is a suffix where dataset.json is
    nnU-Net's or where a label is named like an image without it.

    Raises:
        InputError: there are images of several channels.
    """
    images = content(data_path / spec.folders.train_images).files.keys()
    labels = content(data_path / spec.folders.train_labels).files.keys()
    by_label = any(label not in images and f"{label}{CHANNEL}" in images for label in labels)
    by_content = bool(images) and all(name.endswith(CHANNEL) for name in images if name not in labels)
    if not spec.image_suffix and (by_label or (index.names_channels and by_content and not images & labels)):
        spec = spec.model_copy(update={"image_suffix": CHANNEL})
        say(f"{data_path}: image names end in {CHANNEL} (nnU-Net); case ids are without it")
    if spec.image_suffix == CHANNEL:
        further = sorted(
            name for name in images if re.search(r"_000[1-9]$", name) and f"{name[:-5]}{CHANNEL}" in images
        )
        if further:
            raise InputError(
                f"{data_path / spec.folders.train_images}: several channels per case ({further[0]} beside"
                f" {further[0][:-5]}{CHANNEL}); duomod reads one channel: keep only the {CHANNEL} files"
            )
    return spec
