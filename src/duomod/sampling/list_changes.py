"""Changes to single transforms of a list, by name; and by the settings that version 0.1 had instead of a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from duomod.errors import nearest_name
from duomod.sampling.transforms.base import Transform
from duomod.sampling.transforms.registry import TRANSFORMS

#: The settings of version 0.1 that changed the affine transform: name there, name here.
_AFFINE = {"rotate_degrees": "rotate_degrees", "scale": "scale", "affine_probability": "probability"}
_FLAT = (*_AFFINE, "intensity")


def intensity_changes(strength: float) -> list[dict[str, Any]]:
    """The transforms that ``intensity`` of version 0.1 stood for, in order."""
    return [
        {"name": "contrast", "amount": 0.3 * strength},
        {"name": "brightness", "amount": 0.15 * strength},
        {"name": "gamma", "amount": 0.5 * strength},
        {"name": "gaussian_noise", "probability": 0.5, "sigma": 0.05 * strength},
    ]


def changed_list(base: object, changes: Mapping[str, Any], fields: Sequence[str]) -> list[dict[str, Any]]:
    """Return a list of entries with single transforms changed, added or removed.

    Args:
        base: Names, mappings or transforms.
        changes: By a transform's name, its parameters, true or false; or settings of version 0.1.
        fields: Names that would be understood beside those, for the message.

    Raises:
        ValueError: says everything that is wrong with the changes.
    """
    if not isinstance(base, Sequence) or isinstance(base, str):
        raise ValueError("transforms: must be a list")
    known = [*fields, *_FLAT, *TRANSFORMS.names()]
    unknown = [key for key in changes if key not in known]
    if unknown:
        raise ValueError(
            "; ".join(f"unknown setting '{key}'.{nearest_name(key, known)}" for key in unknown)
            + f" Known: {', '.join(known)}"
        )
    entries = [_as_mapping(entry) for entry in base]
    affine = {new: changes[old] for old, new in _AFFINE.items() if old in changes}
    if affine:
        # Added in front: geometry came before intensity in version 0.1. Its parameters were 0 by default.
        position = _position(entries, "affine")
        old = {"name": "affine", **dict.fromkeys(_AFFINE.values(), 0.0)} if position is None else entries.pop(position)
        new = {**old, **affine}
        if any(new.get(field) != 0 for field in _AFFINE.values()):
            entries.insert(position or 0, new)
    if "intensity" in changes:
        entries = _with_intensity(entries, changes["intensity"])
    for name in (key for key in changes if key not in _FLAT):
        entries = _with(entries, name, changes[name])
    return entries


def _with(entries: list[dict[str, Any]], name: str, change: object) -> list[dict[str, Any]]:
    """The list with one transform changed in its place, added at the end, or removed."""
    position = _position(entries, name)
    if change in (False, None, "none"):
        return [entry for entry in entries if entry.get("name") != name]
    if name == "flip_x" and isinstance(change, str):
        change = {"labels": change}
    if change is True:
        change = {}
    if not isinstance(change, Mapping):
        raise ValueError(f"{name}: give its parameters, true or false, not {change!r}")
    if position is None:
        return [*entries, {"name": name, **change}]
    return [*entries[:position], {**entries[position], **change}, *entries[position + 1 :]]


def _with_intensity(entries: list[dict[str, Any]], strength: object) -> list[dict[str, Any]]:
    """The list with the intensity transforms of version 0.1 at a strength: in their place, or at the end."""
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength <= 1:
        raise ValueError(f"intensity: must be a number from 0 to 1, not {strength!r}")
    wanted = intensity_changes(float(strength))
    names = {entry["name"] for entry in wanted}
    first = next((i for i, entry in enumerate(entries) if entry.get("name") in names), len(entries))
    kept = [entry for entry in entries if entry.get("name") not in names]
    return [*kept[:first], *(wanted if strength else []), *kept[first:]]


def _as_mapping(entry: object) -> dict[str, Any]:
    if isinstance(entry, Transform):
        return entry.model_dump()
    return dict(entry) if isinstance(entry, Mapping) else {"name": entry}


def _position(entries: Sequence[Mapping[str, Any]], name: str) -> int | None:
    """Where a transform stands in a list; None if it does not.

    Raises:
        ValueError: it stands there twice, so that a change could mean either.
    """
    places = [i for i, entry in enumerate(entries) if entry.get("name") == name]
    if len(places) > 1:
        raise ValueError(f"{name}: stands in the list {len(places)} times; to change one of them give the whole list")
    return places[0] if places else None
