"""Transforms by name. A file in this folder is a transform, named as the file; packages add theirs by entry point."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from duomod.errors import InputError
from duomod.plugins import Kind, files_in, only_class
from duomod.sampling.transforms.base import Transform
from duomod.settings import checked

_NOT_TRANSFORMS = {"base", "geometry", "registry"}


def builtin_names() -> list[str]:
    """Names of the transforms in this folder (none is imported)."""
    return files_in(Path(__file__).parent, _NOT_TRANSFORMS)


def _builtin(name: str) -> type[Transform]:
    return only_class(importlib.import_module(f"duomod.sampling.transforms.{name}"), Transform, name)


class _Transforms(Kind[Transform]):
    def of_a_package(self, point: EntryPoint) -> type[Transform]:
        found, name = super().of_a_package(point), point.name
        if found.model_fields["name"].default != name:
            raise InputError(f"transform '{name}': its class must have the field  name: Literal[{name!r}] = {name!r}")
        return found


TRANSFORMS = _Transforms("transform", "duomod.transforms", lambda: Transform, builtin_names, _builtin)


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
            f" names: {', '.join(TRANSFORMS.names())}"
        )
    name = fields["name"]
    return checked(TRANSFORMS.load(name), fields, source=f"{name}: ", see=f"duomod settings {name}")
