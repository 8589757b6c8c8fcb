"""Values of command-line options that are more than one word or number."""

from __future__ import annotations

import contextlib
from typing import Any

from duomod.errors import InputError


def nested(dotted: str, value: Any) -> dict[str, Any]:
    """Turn ``a.b`` and a value into ``{"a": {"b": value}}``."""
    for part in reversed(dotted.split(".")):
        value = {part: value}
    return dict(value)


def assignments(texts: list[str], flag: str) -> dict[str, Any]:
    """Parse ``a.b=value`` texts, whose values are YAML, into one nested mapping.

    Raises:
        InputError: a text without ``=``; names the flag.
    """
    import yaml

    from duomod.config import merged

    result: dict[str, Any] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise InputError(f"{flag} '{text}': write it as name=value")
        parsed = yaml.safe_load(value)
        if isinstance(parsed, str):
            with contextlib.suppress(ValueError):
                parsed = float(parsed)  # YAML 1.1 takes 1e-4 for a text
        result = merged(result, nested(key.strip(), parsed))
    return result


def numbers(text: str | None, count: int, flag: str, kind: type[int] | type[float]) -> Any:
    """Parse ``count`` positive numbers separated by commas; None stays None.

    Raises:
        InputError: another number of values, or one that is not positive; names the flag.
    """
    if text is None:
        return None
    try:
        values = tuple(kind(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count or min(values) <= 0:
        raise InputError(f"{flag} '{text}': give {count} positive numbers separated by commas")
    return values
