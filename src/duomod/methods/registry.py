"""Methods by name. A file in this folder is a method, named as the file; packages add theirs by entry point."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from duomod.console import say
from duomod.errors import InputError, nearest_name
from duomod.plugins import from_entry_point, known_names, load_file, only_class, own_classes

if TYPE_CHECKING:
    from duomod.methods.base import Method

ENTRY_POINT_GROUP = "duomod.methods"
_NOT_METHODS = {"base", "registry", "settings", "conformance", "skeletons"}


def builtin_names() -> list[str]:
    """Names of the methods in this folder (no method is imported)."""
    folder = Path(__file__).parent
    return sorted(m.name for m in pkgutil.iter_modules([str(folder)]) if not m.ispkg and m.name not in _NOT_METHODS)


def method_names() -> list[str]:
    """Names of all methods, built in and from installed packages."""
    return known_names(builtin_names(), ENTRY_POINT_GROUP)


def load_method(name: str) -> type[Method]:
    """Return the class of a method.

    Raises:
        InputError: unknown name (the nearest one is suggested), or a plug-in that cannot be imported.
    """
    from duomod.methods.base import Method

    if name in builtin_names():
        return only_class(importlib.import_module(f"duomod.methods.{name}"), Method, name)
    found = from_entry_point(ENTRY_POINT_GROUP, name, Method, "method")
    if found is not None:
        return found
    known = method_names()
    raise InputError(f"unknown model '{name}'.{nearest_name(name, known)} Known: {', '.join(known)}")


def load_plugin(path: Path) -> type[Method]:
    """Return the method class of a Python file outside any package.

    Raises:
        InputError: no such file, it cannot be imported, or it holds not exactly one method.
    """
    from duomod.methods.base import Method

    return only_class(load_file(path), Method, str(path))


def chosen_method(name: str, plugin: Path | None = None) -> type[Method]:
    """The method to train: that of the user's file, if it holds one; else the one of that name.

    Raises:
        InputError: see :func:`load_plugin` and :func:`load_method`; or the file holds neither a method nor a network.
    """
    from duomod.methods.base import Method
    from duomod.networks.base import Network

    if plugin is None:
        return load_method(name)
    module = load_file(plugin)
    if own_classes(module, Network) and not own_classes(module, Method):
        return load_method(name)
    return load_plugin(plugin)


def available_methods() -> dict[str, type[Method]]:
    """All methods that can be imported; a broken plug-in is reported by name and left out."""
    found = {}
    for name in method_names():
        try:
            found[name] = load_method(name)
        except InputError as error:
            say(f"warning: {error}")
    return found
