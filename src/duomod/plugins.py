"""Classes of the user's: from a Python file, or from an installed package by entry point."""

from __future__ import annotations

import hashlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import Generic, TypeVar

from duomod.console import say
from duomod.errors import InputError, unknown_name

T = TypeVar("T")


def load_file(path: Path) -> ModuleType:
    """Run a Python file that the user named as a module; a second call for the same, unchanged file gives the same one.

    Never for a path that stands in another file: whoever wrote that file would run code here.

    Raises:
        InputError: no such file, or it cannot be imported.
    """
    return _loaded(path).module


def file_sha256(path: Path) -> str:
    """SHA-256 of a Python file as it was run; raises as :func:`load_file`."""
    return _loaded(path).sha256


@dataclass(frozen=True)
class _Loaded:
    module: ModuleType
    sha256: str


class _OfBytes(SourceFileLoader):
    """Runs the bytes that were read and hashed, neither the file again nor a compiled copy beside it."""

    def __init__(self, name: str, path: Path, source: bytes) -> None:
        super().__init__(name, str(path))
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self._source, self.path)


def _loaded(path: Path) -> _Loaded:
    if not path.is_file() or path.suffix != ".py":
        raise InputError(f"{path}: no such Python file")
    return _run(path.resolve(), path.stat().st_mtime_ns)


@cache
def _run(path: Path, changed_ns: int) -> _Loaded:
    source = path.read_bytes()
    name = f"duomod_plugin_{path.stem}"
    loader = _OfBytes(name, path, source)
    specification = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert specification is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{path}: the plug-in cannot be imported: {error}") from error
    return _Loaded(module, hashlib.sha256(source).hexdigest())


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
        InputError: there is none, there are several, or it lacks a method that every such class has.
    """
    found = own_classes(module, base)
    if len(found) != 1:
        raise InputError(f"{source}: expected exactly one subclass of {base.__name__}, found {len(found)}")
    return _whole(found[0], source)


def _whole(kind: type[T], source: str) -> type[T]:
    """The class, if it has every method that its base asks for."""
    lacking = sorted(getattr(kind, "__abstractmethods__", ()))
    if lacking:
        raise InputError(f"{source}: {kind.__name__} lacks {', '.join(lacking)}")
    return kind


def files_in(folder: Path, but: Collection[str] = ()) -> list[str]:
    """Names of the modules in a folder that is a package, sorted, without those of ``but``; none is imported."""
    return sorted(m.name for m in pkgutil.iter_modules([str(folder)]) if not m.ispkg and m.name not in but)


@dataclass(frozen=True)
class Kind(Generic[T]):
    """Classes of one kind by name: duomod's own, and those of installed packages.

    Attributes:
        word: What messages call one.
        group: The packages' group of entry points.
        base: Gives what every class must be a subclass of; asked for only when one is loaded, since it may be heavy.
        builtin: Gives the names of duomod's own.
        load_builtin: Gives one of these by its name.
    """

    word: str
    group: str
    base: Callable[[], type[T]]
    builtin: Callable[[], Collection[str]]
    load_builtin: Callable[[str], type[T]]

    def names(self) -> list[str]:
        """All names, sorted; nothing is imported."""
        return sorted({*self.builtin(), *(point.name for point in entry_points(group=self.group))})

    def load(self, name: str) -> type[T]:
        """The class of a name.

        Raises:
            InputError: unknown name (the nearest one is suggested), a package that cannot be imported, or one whose
                entry point is something else.
        """
        if name in self.builtin():
            return self.load_builtin(name)
        for point in entry_points(group=self.group):
            if point.name == name:
                return self.of_a_package(point)
        raise InputError(unknown_name(self.word, name, self.names()))

    def available(self) -> dict[str, type[T]]:
        """All that can be imported, by name; a broken plug-in is reported by name and left out."""
        found = {}
        for name in self.names():
            try:
                found[name] = self.load(name)
            except InputError as error:
                say(f"warning: {error}")
        return found

    def of_a_package(self, point: EntryPoint) -> type[T]:
        """The class at an entry point; errors as :meth:`load`'s."""
        base = self.base()
        try:
            found = point.load()
        except Exception as error:  # whatever a stranger's module raises when it is run
            raise InputError(
                f"{self.word} '{point.name}' from the package entry point {point.value} is broken: {error}"
            ) from error
        if isinstance(found, type) and issubclass(found, base):
            return _whole(found, f"{self.word} '{point.name}'")
        raise InputError(
            f"{self.word} '{point.name}': its entry point must name a subclass of {base.__module__}.{base.__name__}"
        )
