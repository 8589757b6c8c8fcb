"""The dataset.json of a data set, made by others (AMOS, MSD, nnU-Net v2) or by duomod, and what it says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from duomod.datasets.folder import listed
from duomod.datasets.spec import Modality
from duomod.errors import InputError
from duomod.workspace import read_json

#: Written into the dataset.json of a preprocessed data set as ``format``.
FORMAT = "duomod-preprocessed-1"
_OUR_FORMATS = "duomod-preprocessed"

#: nnU-Net's name for voxels that nobody labelled, and the number that others give them. Not a class.
_IGNORED = ("ignore", 255)

_NUMBER = re.compile("[0-9]{1,6}")

#: In a channel's name; any other name is that of a kind of MR, as nnU-Net takes it.
_IS_CT = re.compile(r"(?<![a-z])(ct|cect|ncct|computed tomography)(?![a-z])", re.IGNORECASE)

#: At most so many problems of one file are told.
_MOST_PROBLEMS = 20


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
    preprocessed = preprocessed_format(content) is not None
    if isinstance(content.get("spec"), dict):
        content = content["spec"]
    modality, channels = _modality(content.get("channel_names", content.get("modality")))
    found = Index(
        name=_text(content.get("name", "")),
        modality=modality,
        channels=channels,
        file_ending=_text(content.get("file_ending", ".nii.gz")),
        preprocessed=preprocessed,
        names_channels="channel_names" in content,
    )
    try:
        style, classes, ignored = _classes(content, path)
    except InputError as error:
        return replace(found, problems=error.problems)
    return replace(found, style=style, classes=classes, ignored=ignored)


def preprocessed_format(content: Any) -> str | None:
    """The format that a dataset.json names, if ``duomod preprocess`` wrote it; others may have a ``format``, too."""
    found = content.get("format") if isinstance(content, dict) else None
    return found if isinstance(found, str) and found.startswith(_OUR_FORMATS) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _classes(content: Mapping[str, Any], path: Path) -> tuple[str, tuple[str, ...], int | None]:
    """Style, names in label order (empty where there are none), and the number of the ignored label."""
    names_given = content.get("classes")
    if isinstance(names_given, list) and len(names_given) > 1:
        odd = [name for name in names_given if not isinstance(name, str)]
        if odd:
            raise InputError(f"{path}: 'classes' must be names, found {_short(odd[0])}")
        return "duomod", tuple(names_given), None
    labels = content.get("labels")
    if not isinstance(labels, dict) or not labels:
        return "duomod", (), None
    numbers = all(_NUMBER.fullmatch(key) for key in labels)
    by_number = numbers and not all(isinstance(value, int) for value in labels.values())
    names = _by_number(labels, path) if by_number else _by_name(labels, path)
    ignored = next((number for number, name in names.items() if number in _IGNORED or name in _IGNORED), None)
    if ignored is not None:
        del names[ignored]
    names.setdefault(0, "background")
    if sorted(names) != list(range(len(names))):
        found = listed([str(number) for number in sorted(names)])
        raise InputError(f"{path}: label numbers must be 0, 1, 2, ... without gaps, found {found}")
    ordered = tuple(names[number] for number in range(len(names)))
    if len(set(ordered)) < len(ordered) or len(ordered) < 2:
        raise InputError(f"{path}: 'labels' needs at least two classes, each with a name of its own")
    return "AMOS/MSD" if by_number else "nnU-Net v2", ordered, ignored


def _by_number(labels: Mapping[str, Any], path: Path) -> dict[int, str]:
    wrong = [key for key, value in labels.items() if not isinstance(value, str)]
    if wrong:
        raise InputError(f"{path}: label {wrong[0]} must have a name, found {_short(labels[wrong[0]])}")
    # By number, not by text: "10" comes after "9".
    names = {int(key): labels[key] for key in sorted(labels, key=int)}
    if len(names) < len(labels):
        raise InputError(f"{path}: a label number is there twice, with and without leading zeros")
    return names


def _by_name(labels: Mapping[str, Any], path: Path) -> dict[int, str]:
    problems: list[str] = []
    names: dict[int, str] = {}
    for name, number in labels.items():
        if isinstance(number, list):
            problems.append(
                f"{path}: class '{name}' is a region (labels {_short(number)}); duomod needs one number per class:"
                " write label maps with one value per structure and list those"
            )
        elif not isinstance(number, (int, str)) or not _NUMBER.fullmatch(str(number)):
            problems.append(f"{path}: class '{name}' must have a number, found {_short(number)}")
        elif int(number) in names:
            problems.append(f"{path}: classes '{names[int(number)]}' and '{name}' have the same number {number}")
        else:
            names[int(number)] = str(name)
    if problems:
        raise InputError(problems[:_MOST_PROBLEMS])
    return names


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _modality(channels: Any) -> tuple[Modality | None, int]:
    """Modality and number of channels from ``{"0": "CT"}``, ``["CT"]`` or ``"CT"``."""
    if isinstance(channels, dict):
        channels = list(channels.values())
    if isinstance(channels, str):
        channels = [channels]
    if not isinstance(channels, list) or not channels:
        return None, 1
    if not isinstance(channels[0], str) or not channels[0].strip():
        return None, len(channels)
    return ("CT" if _IS_CT.search(channels[0]) else "MR"), len(channels)
