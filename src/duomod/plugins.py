"""Classes of the user's, from installed packages by entry point."""

from __future__ import annotations

from importlib.metadata import entry_points
from types import ModuleType
from typing import TypeVar

from duomod.errors import InputError

T = TypeVar("T")


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


def entry_point_names(group: str) -> list[str]:
    """Names that installed packages offer in a group of entry points; nothing is imported."""
    return sorted({point.name for point in entry_points(group=group)})


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
