"""Methods by name. A file in this folder is a method, named as the file; packages add theirs by entry point."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from duomod.plugins import Kind, files_in, load_file, only_class, own_classes

if TYPE_CHECKING:
    from duomod.methods.base import Method

_NOT_METHODS = {"base", "registry", "settings", "conformance", "skeletons"}


def builtin_names() -> list[str]:
    """Names of the methods in this folder (no method is imported)."""
    return files_in(Path(__file__).parent, _NOT_METHODS)


def _base() -> type[Method]:
    from duomod.methods.base import Method

    return Method


def _builtin(name: str) -> type[Method]:
    return only_class(importlib.import_module(f"duomod.methods.{name}"), _base(), name)


METHODS: Kind[Method] = Kind("method", "duomod.methods", _base, builtin_names, _builtin)


def load_plugin(path: Path) -> type[Method]:
    """Return the method class of a Python file outside any package.

    Raises:
        InputError: no such file, it cannot be imported, or it holds not exactly one method.
    """
    return only_class(load_file(path), _base(), str(path))


def chosen_method(name: str, plugin: Path | None = None) -> type[Method]:
    """The method to train: that of the user's file, if it holds one; else the one of that name.

    Raises:
        InputError: see :func:`load_plugin` and :meth:`Kind.load`; or the file holds neither a method nor a network.
    """
    from duomod.networks.base import Network

    if plugin is None:
        return METHODS.load(name)
    module = load_file(plugin)
    if own_classes(module, Network) and not own_classes(module, _base()):
        return METHODS.load(name)
    return load_plugin(plugin)
