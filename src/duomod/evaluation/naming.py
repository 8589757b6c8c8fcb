"""Which classes a pair of folders holds: from a data set description, or from any dataset.json that lies near."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from duomod.console import say
from duomod.datasets.index import read_index
from duomod.datasets.recognise import recognised
from duomod.datasets.spec import DatasetSpec, load_spec, numbered_classes, parse_spec
from duomod.errors import InputError
from duomod.workspace import read_json


@dataclass(frozen=True)
class Naming:
    """Names for class indices.

    Attributes:
        dataset: Name of the description, empty if there is none.
        classes: Class names, background first; empty while the number of classes is unknown.
        tail_classes: Names of the rare classes.
        label_merges: Raw label value -> class index, applied when label maps are read.
        image_suffix: Stripped from file names to get the case id.
        source: Where the names come from, in words.
    """

    dataset: str = ""
    classes: tuple[str, ...] = ()
    tail_classes: tuple[str, ...] = ()
    label_merges: Mapping[int, int] = field(default_factory=dict)
    image_suffix: str = ""
    source: str = ""

    @property
    def num_classes(self) -> int | None:
        """Number of classes with background, or None while unknown."""
        return len(self.classes) or None


def _of_spec(spec: DatasetSpec, source: str) -> Naming:
    return Naming(spec.name, spec.classes, spec.tail_classes, spec.label_merges, spec.image_suffix, source)


def _of_json(path: Path) -> Naming | None:
    """What a dataset.json names; None where it has no classes.

    Raises:
        InputError: it has classes that cannot be used.
    """
    index = read_index(path)
    if index.preprocessed:
        # Ours holds the whole description: with its tail, its merges and its suffix.
        content = read_json(path)
        if isinstance(content.get("spec"), dict):
            return _of_spec(parse_spec(content["spec"], f"{path}: spec"), str(path))
    if index.problems:
        raise InputError(index.problems)
    if not index.classes:
        return None
    folder = path.absolute().parent
    known = recognised(folder, index.classes)
    if known is not None:
        return _of_spec(known[0], f"{path} (recognised as {known[0].name})")
    return Naming(dataset=folder.name, classes=index.classes, source=str(path))


def _near(path: Path) -> Naming | None:
    """What a dataset.json that lies near names; one that cannot be used is said and passed over."""
    try:
        naming = _of_json(path)
    except InputError as error:
        say(f"{error}; looking further.")
        return None
    if naming is None:
        say(f"{path} names no classes; looking further.")
    return naming


def _of_folder_name(folders: list[Path], num_classes: int | None) -> Naming | None:
    for folder in folders:
        known = recognised(folder)
        if known is not None and num_classes in (None, known[0].num_classes):
            return _of_spec(known[0], f"the folder's name, {folder.name}")
    return None


def find_naming(pred_path: Path, gt_path: Path, dataset: str | None, num_classes: int | None) -> Naming:
    """Find the classes' names.

    In this order: ``dataset`` (a built-in name, a YAML file, or a dataset.json); a dataset.json in or above the truth,
    then the prediction; a truth folder named like a built-in data set; numbers.

    Raises:
        InputError: unknown data set; or ``num_classes`` contradicts the description.
    """
    truth = gt_path if gt_path.is_dir() else gt_path.parent
    prediction = pred_path if pred_path.is_dir() else pred_path.parent
    near = [truth.absolute(), truth.absolute().parent, prediction.absolute(), prediction.absolute().parent]
    naming: Naming | None = None
    if dataset is not None and dataset.endswith(".json"):
        naming = _of_json(Path(dataset))
        if naming is None:
            raise InputError(f"{dataset}: names no classes (expected 'labels' or 'classes')")
    elif dataset is not None:
        naming = _of_spec(load_spec(dataset), f"the data set description {dataset}")
    else:
        candidates = (path for folder in near if (path := folder / "dataset.json").is_file())
        naming = next((found for path in candidates if (found := _near(path))), None)
        naming = naming or _of_folder_name(near[:2], num_classes)
    if naming is None:
        classes = numbered_classes(num_classes) if num_classes else ()
        return Naming(classes=classes, source="their numbers: no description was found")
    if num_classes is not None and num_classes != len(naming.classes):
        raise InputError(
            f"{num_classes} classes were asked for, but {naming.source} has {len(naming.classes)}, background included."
            " Leave the number out, or name the right data set."
        )
    return naming
