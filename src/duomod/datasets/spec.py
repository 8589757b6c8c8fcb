"""The description of a data set: classes, folders, modality, grid. Built-in ones are YAML files in this folder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PureWindowsPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from duomod.bounds import Spacing, Voxels
from duomod.datasets.case_names import CaseId, case_id, shown
from duomod.errors import InputError, nearest_name, unknown_name
from duomod.settings import Settings, checked
from duomod.workspace import parse_yaml, read_yaml

Modality = Literal["CT", "MR"]
Role = Literal["Tr", "Va", "Ts", "Un"]


class Folders(Settings):
    """Raw folders, relative to the data set's root. A folder that does not exist is skipped, except the first."""

    train_images: str = "imagesTr"
    train_labels: str = "labelsTr"
    val_images: str = "imagesVa"
    val_labels: str = "labelsVa"
    test_images: str = "imagesTs"
    test_labels: str = "labelsTs"
    unlabeled_images: str = "imagesUn"

    @field_validator("*")
    @classmethod
    def _stays_inside(cls, folder: str) -> str:
        path = PureWindowsPath(folder)  # which takes both kinds of separators
        if not folder or path.drive or path.root or ".." in path.parts or not folder.isprintable():
            raise ValueError(f"'{shown(folder)}' must be a folder inside the data set, without '..'")
        return folder


class ModalityRule(Settings):
    """Cases whose id ends in a number of at least ``id_from`` have this modality (AMOS: 500 and above are MR).

    Only ids that begin with ``prefix``, in any case: in others the number has another meaning.
    """

    id_from: int = Field(ge=0, le=10**18)
    modality: Modality
    prefix: str = ""


def _share_or_count(number: float) -> float:
    if number > 1 and not number.is_integer():
        raise ValueError(f"{number:g} is neither a share (below 1) nor a whole number of cases")
    return number


#: Of the labelled training cases: a share below 1, or how many.
HeldOut = Annotated[float, Field(ge=0, le=10**6), AfterValidator(_share_or_count)]


class SplitRule(Settings):
    """Where the evaluation (validation) and test cases come from when no list says so.

    ``"Va"`` or ``"Ts"``: all labelled cases of that folder. A number: that share (< 1) or count (>= 1) of the labelled
    training cases, drawn with the split's seed and kept apart from training. ``same_person`` lists scans of one person;
    they always stay in one part. ``order`` says how labelled training cases are chosen: at random (``seeded``), or the
    first by name (``sorted``: the published left-atrium protocol).
    """

    eval: Literal["Va", "Ts"] | HeldOut = 0.1
    test: Literal["Va", "Ts"] | HeldOut = "Va"
    same_person: tuple[tuple[CaseId, ...], ...] = ()
    order: Literal["seeded", "sorted"] = "seeded"


#: A value of a raw label map.
RawLabel = Annotated[int, Field(ge=-(2**31), lt=2**31)]
#: HU.
Intensity = Annotated[float, Field(ge=-1e6, le=1e6)]


class DatasetSpec(Settings):
    """Everything duomod must be told about a data set. Lengths in mm, in x, y, z; patch in voxels, in z, y, x."""

    name: str
    title: str = ""
    classes: tuple[str, ...] = Field(
        min_length=2, max_length=256, description="class names in label order (uint8), background first"
    )
    tail_classes: tuple[str, ...] = ()
    sided_pairs: tuple[tuple[str, str], ...] = ()
    folders: Folders = Folders()
    image_suffix: str = Field("", description="stripped from image file names to get the case id, e.g. _0000")
    label_merges: dict[RawLabel, int] = Field(default_factory=dict, description="raw label value -> class index")
    modality: Modality = "CT"
    modality_rules: tuple[ModalityRule, ...] = ()
    spacing: tuple[Spacing, Spacing, Spacing] = Field((1.5, 1.5, 2.0), description="mm, x y z")
    window: tuple[Intensity, Intensity] = Field((-125.0, 275.0), description="HU mapped to [0, 1]; CT only")
    patch: tuple[Voxels, Voxels, Voxels] = Field((64, 128, 128), description="voxels, z y x")
    split: SplitRule = SplitRule()

    @model_validator(mode="after")
    def _names_are_consistent(self) -> DatasetSpec:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: a name appears twice")
        if not all(name.strip() and name.isprintable() for name in self.classes):
            raise ValueError("classes: a name is empty or holds control characters")
        if not self.name.strip():
            raise ValueError("name: is empty; write what the data set is called")
        named = [("tail_classes", name) for name in self.tail_classes]
        named += [("sided_pairs", name) for pair in self.sided_pairs for name in pair]
        for field, name in named:
            if name not in self.classes:
                raise ValueError(f"{field}: '{name}' is not among the classes.{nearest_name(name, self.classes)}")
            if name == self.classes[0]:
                raise ValueError(f"{field}: '{name}' is the background, no organ; remove it")
        if any(target >= len(self.classes) or target < 0 for target in self.label_merges.values()):
            raise ValueError(f"label_merges: targets must be below {len(self.classes)}, the number of classes")
        if self.window[0] >= self.window[1]:
            raise ValueError(f"window: {self.window[0]:g} is not below {self.window[1]:g}; write it as [low, high]")
        return self

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.classes)

    @property
    def sided_label_pairs(self) -> tuple[tuple[int, int], ...]:
        """Pairs of class indices that change places when the image is mirrored left to right."""
        return tuple((self.classes.index(a), self.classes.index(b)) for a, b in self.sided_pairs)

    def case_modality(self, case_id: str) -> Modality:
        """Return the modality of a case, by the rules for its id."""
        number = re.search(r"(\d+)\D*$", case_id)
        for rule in self.modality_rules:
            its_own = case_id.casefold().startswith(rule.prefix.casefold())
            if its_own and number and int(number.group(1)) >= rule.id_from:
                return rule.modality
        return self.modality

    def case_id(self, file_name: str) -> str:
        """Return the case id of an image file's name (see :func:`duomod.datasets.case_names.case_id`)."""
        return case_id(file_name, self.image_suffix)


def numbered_classes(num_classes: int) -> tuple[str, ...]:
    """Return ``background, class_1, ...``."""
    return ("background", *(f"class_{label}" for label in range(1, num_classes)))


#: Task names that the original scripts use.
_ALIASES = {"amos": "amos22", "flare": "flare22"}


def _builtin() -> dict[str, Traversable]:
    """The data set descriptions that ship with the package: name -> file."""
    here = files(__package__)
    paths = [path for folder in (here, here / "phantom") for path in folder.iterdir() if path.name.endswith(".yaml")]
    return {path.name.removesuffix(".yaml"): path for path in paths}


def builtin_names() -> list[str]:
    """Names of the data set descriptions that ship with the package."""
    return sorted(_builtin())


def is_builtin(name_or_path: str) -> bool:
    """Whether a name is that of a description that ships with the package (else it is the path of a user's own)."""
    return _ALIASES.get(name_or_path, name_or_path) in _builtin()


def parse_spec(data: Mapping[str, Any], source: str) -> DatasetSpec:
    """Validate a description.

    Raises:
        InputError: lists every wrong field by name; ``source`` says where it came from.
    """
    return checked(DatasetSpec, dict(data), source=f"{source}: ", see="docs/data.md")


def load_spec(name_or_path: str) -> DatasetSpec:
    """Load a built-in description by name, or a user's YAML file by path.

    Raises:
        InputError: unknown name (the nearest one is suggested), missing file, invalid YAML or wrong fields.
    """
    name = _ALIASES.get(name_or_path, name_or_path)
    if (shipped := _builtin().get(name)) is not None:
        data = parse_yaml(shipped.read_text(encoding="utf-8"), name)
    elif Path(name_or_path).suffix in (".yaml", ".yml"):
        data = read_yaml(Path(os.path.expanduser(name_or_path)))
    else:
        raise InputError(f"{unknown_name('data set', name_or_path, builtin_names())}; or give the path of a YAML file")
    if not isinstance(data, dict):
        raise InputError(f"{name_or_path}: expected fields such as name, classes, spacing")
    return parse_spec(data, name_or_path)
