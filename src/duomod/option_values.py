"""Settings as texts: dotted names, and values that are more than one word or number."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from duomod.errors import InputError, in_one_line
from duomod.workspace import parse_yaml

#: Names that a dotted one is made of.
_MOST_PARTS = 20


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested mappings; values in ``changes`` win."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(value, Mapping) and isinstance(old, Mapping) else value
    return result


def nested(dotted: str, value: Any) -> dict[str, Any]:
    """Turn ``a.b`` and a value into ``{"a": {"b": value}}``."""
    for part in reversed(dotted.split(".")):
        value = {part: value}
    return dict(value)


def assignments(texts: list[str], flag: str) -> tuple[dict[str, Any], list[str]]:
    """Parse ``a.b=value`` texts, whose values are YAML, into one nested mapping; a later one wins.

    Returns:
        The mapping, and a sentence about each text that is no assignment; they name the flag.
    """
    result: dict[str, Any] = {}
    problems = []
    for text in texts:
        key, sign, value = text.partition("=")
        shown = f"{flag} '{in_one_line(text)}'"
        parts = key.strip().split(".")
        if not sign or not all(parts) or len(parts) > _MOST_PARTS:
            problems.append(f"{shown}: write it as name=value")
            continue
        try:
            result = merged(result, nested(key.strip(), _read(value)))
        except InputError as error:
            problems.append(f"{shown}: {str(error).partition(': ')[2]}, or put quotes around the value")
    return result, problems


def assignment_texts(values: Mapping[str, Any]) -> list[str]:
    """The texts from which :func:`assignments` makes a nested mapping again."""
    return [f"{name}={_as_yaml(value)}" for name, value in _leaves(values, "")]


def _leaves(values: Mapping[str, Any], before: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _as_yaml(value: Any) -> str:
    if isinstance(value, str):
        with contextlib.suppress(InputError):
            if _read(value) == value:
                return value
        return json.dumps(value, ensure_ascii=False)
    plain = list(value) if isinstance(value, tuple) else value
    text: str = yaml.safe_dump(plain, default_flow_style=True, width=float("inf"), allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _read(text: str) -> Any:
    """The value that a text stands for."""
    value = parse_yaml(text, "value")
    if isinstance(value, str) and value == text.strip():
        with contextlib.suppress(ValueError):
            number = float(value)  # YAML 1.1 takes 1e-4 for a text
            return number if math.isfinite(number) else value
    return value
