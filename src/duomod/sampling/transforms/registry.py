"""Transforms by name. A file in this folder is a transform, named as the file; packages add theirs by entry point."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from duomod.console import say
from duomod.errors import InputError, nearest_name
from duomod.plugins import from_entry_point, known_names, only_class
from duomod.sampling.transforms.base import Transform
from duomod.settings import checked

ENTRY_POINT_GROUP = "duomod.transforms"
_NOT_TRANSFORMS = {"base", "geometry", "registry"}


def builtin_names() -> list[str]:
    """Names of the transforms in this folder (none is imported)."""
    folder = Path(__file__).parent
    return sorted(m.name for m in pkgutil.iter_modules([str(folder)]) if m.name not in _NOT_TRANSFORMS)


def transform_names() -> list[str]:
    """Names of all transforms, built in and from installed packages."""
    return known_names(builtin_names(), ENTRY_POINT_GROUP)


def load_transform(name: str) -> type[Transform]:
    """Return the class of a transform.

    Raises:
        InputError: unknown name (the nearest one is suggested), or a plug-in that cannot be used.
    """
    if name in builtin_names():
        return only_class(importlib.import_module(f"duomod.sampling.transforms.{name}"), Transform, name)
    found = from_entry_point(ENTRY_POINT_GROUP, name, Transform, "transform")
    if found is not None:
        if found.model_fields["name"].default != name:
            raise InputError(f"transform '{name}': its class must have the field  name: Literal[{name!r}] = {name!r}")
        return found
    known = transform_names()
    raise InputError(f"unknown transform '{name}'.{nearest_name(name, known)} Known: {', '.join(known)}")


def available_transforms() -> dict[str, type[Transform]]:
    """All transforms that can be imported; a broken plug-in is reported by name and left out."""
    found = {}
    for name in transform_names():
        try:
            found[name] = load_transform(name)
        except InputError as error:
            say(f"warning: {error}")
    return found


def parse_transform(entry: object) -> Transform:
    """Turn an entry of a list into a transform: a name alone, or a mapping with ``name`` and parameters.

    Raises:
        InputError: lists everything that is wrong with the entry.
    """
    if isinstance(entry, Transform):
        return entry
    fields: Mapping[Any, Any] = (
        {"name": entry} if isinstance(entry, str) else entry if isinstance(entry, Mapping) else {}
    )
    if not isinstance(fields.get("name"), str):
        raise InputError(
            f"{entry!r} is no transform: give its name, or {{name: ..., parameter: value}};"
            f" names: {', '.join(transform_names())}"
        )
    name = fields["name"]
    return checked(load_transform(name), fields, source=f"{name}: ", see=f"duomod settings {name}")
