"""Which classes a pair of folders holds: from a data set description, or from any dataset.json that lies near."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duomod.console import say
from duomod.datasets.importers import builtin_like, numbered_classes
from duomod.datasets.spec import DatasetSpec, builtin_names, load_spec
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


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def classes_in_json(data: Any) -> tuple[str, ...] | None:
    """Return the class names in the content of a dataset.json, or None if it names none that can be used.

    Read are: ``classes`` as a list (duomod), ``labels`` as ``{"0": "background", ...}`` (AMOS, MSD) and as
    ``{"background": 0, ...}`` (nnU-Net). nnU-Net's regions (lists of labels) aren't classes of a label map.
    """
    if not isinstance(data, dict):
        return None
    if isinstance(data.get("spec"), dict):
        data = data["spec"]
    if isinstance(data.get("classes"), list):
        return tuple(map(str, data["classes"]))
    labels = data.get("labels")
    if not isinstance(labels, dict) or not labels:
        return None
    by_index: dict[int, str] = {}
    for key, value in labels.items():
        if re.fullmatch(r"\d+", str(key)) and isinstance(value, str):
            by_index[int(key)] = value
        elif isinstance(value, int) and not isinstance(value, bool):
            by_index[value] = str(key)
    if len(by_index) != len(labels):
        return None
    by_index.setdefault(0, "background")
    by_index.pop(255, None)  # an "ignore" label isn't a class
    if sorted(by_index) != list(range(len(by_index))) or len(by_index) < 2:
        return None
    names = tuple(by_index[index] for index in range(len(by_index)))
    return names if len(set(names)) == len(names) else None


def _called(folder: Path) -> DatasetSpec | None:
    """Return the built-in description that a folder is named after."""
    return next((load_spec(name) for name in builtin_names() if _plain(folder.name) == _plain(name)), None)


def _of_json(path: Path) -> Naming | None:
    classes = classes_in_json(read_json(path))
    if classes is None:
        return None
    spec = builtin_like(classes)
    if spec is None:
        # WORD's own dataset.json lists the raw labels, of which two become one class.
        called = _called(path.absolute().parent)
        if called and called.label_merges and len(classes) == called.num_classes + len(called.label_merges):
            spec = called
    if spec is not None:
        return _of_spec(spec, f"{path} (recognised as {spec.name})")
    return Naming(dataset=path.absolute().parent.name, classes=classes, source=str(path))


def _of_folder_name(folders: list[Path], num_classes: int | None) -> Naming | None:
    for folder in folders:
        spec = _called(folder)
        if spec is not None and num_classes in (None, spec.num_classes):
            return _of_spec(spec, f"the folder's name, {folder.name}")
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
        for candidate in (folder / "dataset.json" for folder in near):
            if candidate.is_file():
                naming = _of_json(candidate)
                if naming is not None:
                    break
                say(f"{candidate} names no classes that can be used; looking further.")
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
