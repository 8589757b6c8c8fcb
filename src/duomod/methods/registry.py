"""Methods by name. A file in this folder is a method, named as the file; packages add theirs by entry point."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from duomod.console import say
from duomod.errors import InputError, nearest_name

if TYPE_CHECKING:
    from duomod.methods.base import Method

ENTRY_POINT_GROUP = "duomod.methods"
_NOT_METHODS = {"base", "registry", "settings", "catalog", "conformance"}


def builtin_names() -> list[str]:
    """Names of the methods in this folder (no method is imported)."""
    folder = Path(__file__).parent
    return sorted(m.name for m in pkgutil.iter_modules([str(folder)]) if not m.ispkg and m.name not in _NOT_METHODS)


def method_names() -> list[str]:
    """Names of all methods, built in and from installed packages."""
    return sorted({*builtin_names(), *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def load_method(name: str) -> type[Method]:
    """Return the class of a method.

    Raises:
        InputError: unknown name (the nearest one is suggested), or a plug-in that cannot be imported.
    """
    if name in builtin_names():
        return _method_class(importlib.import_module(f"duomod.methods.{name}"), name)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name == name:
            try:
                found = point.load()
            except Exception as error:
                raise InputError(
                    f"method '{name}' from the package entry point {point.value} is broken: {error}"
                ) from error
            return _checked(found, name)
    known = method_names()
    raise InputError(f"unknown model '{name}'.{nearest_name(name, known)} Known: {', '.join(known)}")


def load_plugin(path: Path) -> type[Method]:
    """Return the method class of a Python file outside any package.

    Raises:
        InputError: no such file, it cannot be imported, or it holds not exactly one method.
    """
    specification = importlib.util.spec_from_file_location(f"duomod_plugin_{path.stem}", path)
    if specification is None or specification.loader is None or not path.is_file():
        raise InputError(f"{path}: no such Python file")
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{path}: the plug-in cannot be imported: {error}") from error
    return _method_class(module, str(path))


def available_methods() -> dict[str, type[Method]]:
    """All methods that can be imported; a broken plug-in is reported by name and left out."""
    found = {}
    for name in method_names():
        try:
            found[name] = load_method(name)
        except InputError as error:
            say(f"warning: {error}")
    return found


def _method_class(module: object, source: str) -> type[Method]:
    from duomod.methods.base import Method

    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Method) and value.__module__ == getattr(module, "__name__", "")
    ]
    if len(own) != 1:
        raise InputError(f"{source}: expected exactly one subclass of Method, found {len(own)}")
    return own[0]


def _checked(found: object, name: str) -> type[Method]:
    from duomod.methods.base import Method

    if isinstance(found, type) and issubclass(found, Method):
        return found
    raise InputError(f"method '{name}': its entry point must name a subclass of duomod.methods.base.Method")
