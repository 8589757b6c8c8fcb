"""Classes of the user's: from a Python file, or from an installed package by entry point."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from duomod.errors import InputError

T = TypeVar("T")


def load_file(path: Path) -> ModuleType:
    """Run a Python file as a module; a second call for the same, unchanged file gives the same module.

    Raises:
        InputError: no such file, or it cannot be imported.
    """
    if not path.is_file() or path.suffix != ".py":
        raise InputError(f"{path}: no such Python file")
    return _module(path.resolve(), path.stat().st_mtime_ns)


@cache
def _module(path: Path, changed_ns: int) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"duomod_plugin_{path.stem}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{path}: the plug-in cannot be imported: {error}") from error
    return module


def own_classes(module: ModuleType, base: type[T]) -> list[type[T]]:
    """The subclasses of ``base`` that a module defines itself."""
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
    ]


def only_class(module: ModuleType, base: type[T], source: str) -> type[T]:
    """The one subclass of ``base`` that a module defines.

    Raises:
        InputError: there is none, or there are several.
    """
    found = own_classes(module, base)
    if len(found) != 1:
        raise InputError(f"{source}: expected exactly one subclass of {base.__name__}, found {len(found)}")
    return found[0]


def known_names(builtin: Iterable[str], group: str) -> list[str]:
    """The built-in names, and those that installed packages offer in a group of entry points; nothing is imported."""
    return sorted({*builtin, *(point.name for point in entry_points(group=group))})


def from_entry_point(group: str, name: str, base: type[T], what: str) -> type[T] | None:
    """The class that an installed package offers under a name; None if none does.

    Args:
        group: Of entry points.
        name: The entry point's.
        base: What the class must be a subclass of.
        what: Word for such a class in errors.

    Raises:
        InputError: the package cannot be imported, or the entry point is something else.
    """
    for point in entry_points(group=group):
        if point.name == name:
            try:
                found = point.load()
            except Exception as error:
                raise InputError(
                    f"{what} '{name}' from the package entry point {point.value} is broken: {error}"
                ) from error
            if isinstance(found, type) and issubclass(found, base):
                return found
            raise InputError(
                f"{what} '{name}': its entry point must name a subclass of {base.__module__}.{base.__name__}"
            )
    return None
