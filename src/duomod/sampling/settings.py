"""Settings of the streams: which crops are drawn, how they are augmented, how a method's views are made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from duomod.bounds import Many
from duomod.errors import InputError
from duomod.sampling.list_changes import changed_list
from duomod.sampling.transforms.base import Transform
from duomod.sampling.transforms.registry import parse_transform
from duomod.settings import Settings

#: Labelled data whose class counts a method starts from: all volumes, the first four, one random crop of each.
CountsFrom = Literal["volumes", "first_volumes", "crops"]


class SamplingConfig(Settings):
    """Which crops are drawn. ``batch`` patches of each stream per step."""

    batch: Many = Field(2, description="labelled patches per step")
    batch_unlabeled: Many | None = Field(None, description="unlabelled patches per step; none: as labelled")
    labelled: Literal["balanced", "foreground", "uniform"] = Field(
        "balanced",
        description="balanced: a class first, then a voxel of it; foreground: any organ voxel (by volume); uniform",
    )
    labelled_share: float = Field(
        0.8, ge=0, le=1, description="share of labelled crops so centred; the rest is uniform"
    )
    jitter: float = Field(
        0.0,
        ge=0,
        le=1,
        description="how far from the patch's centre the chosen voxel may lie; 1: anywhere in the patch",
    )
    unlabelled: Literal["body", "uniform"] = Field(
        "body", description="unlabelled crops: centred on the body, or anywhere"
    )
    labelled_replacement: bool = Field(False, description="draw labelled cases with replacement instead of in passes")
    small_axis_margin: int = Field(
        0, ge=0, le=1024, description="extra padding in voxels on axes shorter than the patch"
    )
    workers: int = Field(0, ge=0, le=1024, description="loader processes; 0: in the training process")


def _parsed(entry: object) -> Transform:
    try:
        return parse_transform(entry)
    except InputError as error:
        raise ValueError("\n".join(error.problems)) from None


#: An entry of a list: read from a name or a mapping, written as a mapping with all parameters.
Entry = Annotated[SerializeAsAny[Transform], BeforeValidator(_parsed)]


class TransformList(Settings):
    """Transforms in the order in which they are applied."""

    transforms: tuple[Entry, ...] = Field((), description="names, or mappings of a name and parameters")
    keep_range: bool = Field(True, description="bring intensities that a transform changed back into [0, 1]")


class AugmentConfig(TransformList):
    """Augmentation of patches, the same for labelled and unlabelled ones.

    Beside its fields it understands changes to single transforms by name, ``gamma: {amount: 0.2}``, ``flip_y: false``
    (``true``: with its defaults), and the settings of version 0.1 (``flip_x: plain``, ``rotate_degrees: 10``, ...).
    Both change the list that it is given, or the default one.
    """

    transforms: tuple[Entry, ...] = Field(
        default_factory=lambda: (parse_transform("flip_x"),),
        description="names, or mappings of a name and parameters; the list: duomod settings transforms",
    )
    draws: Literal["own", "crop"] = Field(
        "own",
        description="own: every transform has random numbers of its own; crop: those of the crop, continued"
        " (the reference, which draws a flip after the place)",
    )

    @model_validator(mode="before")
    @classmethod
    def _edited(cls, data: Any) -> Any:
        if isinstance(data, Sequence) and not isinstance(data, str):
            return {"transforms": data}
        if not isinstance(data, Mapping):
            return data
        changes = {key: value for key, value in data.items() if key not in cls.model_fields}
        if not changes:
            return data
        rest = {key: value for key, value in data.items() if key in cls.model_fields}
        return {**rest, "transforms": changed_list(rest.get("transforms", ("flip_x",)), changes, [*cls.model_fields])}


class ViewConfig(TransformList):
    """How a view is made of the patches of a batch."""

    of: Literal["unlabelled", "all"] = Field("unlabelled", description="all: labelled patches first, then the others")

    @model_validator(mode="after")
    def _can_be_carried(self) -> Self:
        lost = [transform.name for transform in self.transforms if not transform.known_geometry]
        if lost:
            raise ValueError(f"{', '.join(lost)}: cannot be used in a view, as no prediction could be carried over")
        return self


def strong_view(strength: float = 1.0) -> ViewConfig:
    """The strong view of consistency methods: gamma, contrast, brightness, noise and a smooth field.

    At strength 1: power from 1/2 to 2, contrast 0.5 to 1.5 about the patch's mean, brightness +-0.2, noise of sigma up
    to 0.1, field 0.7 to 1.3. At 0 it is the patch itself.
    """
    return ViewConfig.model_validate(
        {
            "transforms": [
                {"name": "gamma", "amount": strength * math.log(2)},
                {"name": "contrast", "amount": 0.5 * strength, "about": "mean"},
                {"name": "brightness", "amount": 0.2 * strength},
                {"name": "gaussian_noise", "sigma": 0.1 * strength},
                {"name": "smooth_field", "amount": 0.3 * strength},
            ]
        }
    )


def usual_view(name: str) -> ViewConfig:
    """The views that any method may declare by name alone.

    ``weak`` is the unlabelled patch as the training's own augmentation left it. ``strong`` and ``strong2`` are changed
    by :func:`strong_view`, each with random numbers of its own.

    Raises:
        ValueError: another name, which the method's settings should have described.
    """
    usual = {"weak": ViewConfig(), "strong": strong_view(), "strong2": strong_view()}
    if name not in usual:
        raise ValueError(
            f"no view is usually called '{name}': the method's settings must say how it is made (MethodConfig.view)."
            f" Usual: {', '.join(usual)}"
        )
    return usual[name]
