"""The dataset.json of a data set, made by others (AMOS, MSD, nnU-Net v2) or by duomod, and what it says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from duomod.datasets.spec import Modality
from duomod.errors import InputError
from duomod.workspace import read_json

#: nnU-Net's name for voxels that nobody labelled, and the number that others give them. Not a class.
_IGNORED = ("ignore", 255)


@dataclass(frozen=True)
class Index:
    """What a dataset.json says.

    Attributes:
        name: What the data set is called; empty where that is not said.
        classes: Names in label order, background first; empty where it names none that can be used.
        problems: Why its classes cannot be used; empty where they can, and where it names none.
        modality: None where it is not said.
        style: Whose convention it follows, in words.
        channels: Image channels per case.
        file_ending: Of the scans.
        ignored: Number of the label for voxels without truth, if there is one.
        preprocessed: Whether ``duomod preprocess`` wrote it.
        names_channels: Whether it says ``channel_names``, as nnU-Net v2 does.
    """

    name: str = ""
    classes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    modality: Modality | None = None
    style: str = "duomod"
    channels: int = 1
    file_ending: str = ".nii.gz"
    ignored: int | None = None
    preprocessed: bool = False
    names_channels: bool = False


def read_index(path: Path) -> Index:
    """Read a dataset.json.

    Read are ``classes`` as a list (duomod), ``labels`` as ``{"0": "background", ...}`` (AMOS, MSD) and as
    ``{"background": 0, ...}`` (nnU-Net).

    Raises:
        InputError: it is missing or not JSON. Classes that cannot be used are no error here: a description given
            otherwise may stand in for them.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        return Index()
    preprocessed = "format" in content
    if isinstance(content.get("spec"), dict):
        content = content["spec"]
    modality, channels = _modality(content.get("channel_names", content.get("modality")))
    found = Index(
        name=str(content.get("name", "")),
        modality=modality,
        channels=channels,
        file_ending=str(content.get("file_ending", ".nii.gz")),
        preprocessed=preprocessed,
        names_channels="channel_names" in content,
    )
    try:
        style, classes, ignored = _classes(content, path)
    except InputError as error:
        return replace(found, problems=error.problems)
    return replace(found, style=style, classes=classes, ignored=ignored)


def _classes(content: Mapping[str, Any], path: Path) -> tuple[str, tuple[str, ...], int | None]:
    """Style, names in label order (empty where there are none), and the number of the ignored label."""
    listed = content.get("classes")
    if isinstance(listed, list) and len(listed) > 1:
        return "duomod", tuple(map(str, listed)), None
    labels = content.get("labels")
    if not isinstance(labels, dict) or not labels:
        return "duomod", (), None
    numbers = all(re.fullmatch(r"\d+", str(key)) for key in labels)
    by_number = numbers and not all(isinstance(value, int) for value in labels.values())
    names = _by_number(labels, path) if by_number else _by_name(labels, path)
    ignored = next((number for number, name in names.items() if number in _IGNORED or name in _IGNORED), None)
    if ignored is not None:
        del names[ignored]
    names.setdefault(0, "background")
    if sorted(names) != list(range(len(names))):
        found = ", ".join(map(str, sorted(names)))
        raise InputError(f"{path}: label numbers must be 0, 1, 2, ... without gaps, found {found}")
    ordered = tuple(names[number] for number in range(len(names)))
    if len(set(ordered)) < len(ordered) or len(ordered) < 2:
        raise InputError(f"{path}: 'labels' needs at least two classes, each with a name of its own")
    return "AMOS/MSD" if by_number else "nnU-Net v2", ordered, ignored


def _by_number(labels: Mapping[str, Any], path: Path) -> dict[int, str]:
    wrong = [key for key, value in labels.items() if not isinstance(value, str)]
    if wrong:
        raise InputError(f"{path}: label {wrong[0]} must have a name, found {labels[wrong[0]]!r}")
    # By number, not by text: "10" comes after "9".
    return {int(key): labels[key] for key in sorted(labels, key=int)}


def _by_name(labels: Mapping[str, Any], path: Path) -> dict[int, str]:
    problems: list[str] = []
    names: dict[int, str] = {}
    for name, number in labels.items():
        if isinstance(number, list):
            problems.append(
                f"{path}: class '{name}' is a region (labels {number}); duomod needs one number per class:"
                " write label maps with one value per structure and list those"
            )
        elif isinstance(number, bool) or not re.fullmatch(r"\d+", str(number)):
            problems.append(f"{path}: class '{name}' must have a number, found {number!r}")
        elif int(number) in names:
            problems.append(f"{path}: classes '{names[int(number)]}' and '{name}' have the same number {number}")
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
