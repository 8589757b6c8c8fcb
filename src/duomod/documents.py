"""JSON and YAML that come from outside: read within bounds, or refused in one line that names the file and the place.

What is bounded: bytes, levels of nesting, the nodes of a YAML file with every alias written out (300 bytes of nested
aliases stand for billions), and the digits of a number. What is refused besides: keys given twice, numbers that are not
finite, text with NUL or half characters, YAML's tags for objects. Dates stay the texts that they are.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from duomod.errors import InputError, in_one_line

#: Largest file in bytes. A preprocessed set's dataset.json takes some 1,500 bytes a case.
MOST_JSON_BYTES, MOST_YAML_BYTES = 64 << 20, 1 << 20
#: Mappings and lists inside each other; nothing that is written for duomod has more than ten.
MOST_LEVELS = 50
#: Values of a YAML file, aliases written out.
MOST_NODES = 100_000
#: Whole numbers reach to 64 bits; a number is written in at most this many characters.
_BITS, _MOST_DIGITS = 64, 400

_MARKS = {codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
_SAVE_AS = "save it as UTF-8"
#: How JSON writes NUL and halves of characters; where it is in a file, all of its texts are looked at.
_ESCAPED = re.compile(r"\\u(0000|[dD][89a-fA-F])")


def read_text(source: Path, most_bytes: int = MOST_JSON_BYTES) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Raises:
        InputError: missing, a folder, not to be read, larger than ``most_bytes``, or not such a text.
    """
    try:
        with open(source, "rb") as stream:
            content = stream.read(most_bytes + 1)
    except FileNotFoundError:
        raise InputError(f"{source}: file not found") from None
    except IsADirectoryError:
        raise InputError(f"{source}: is a folder, not a file; give the path of a file") from None
    except (OSError, ValueError) as error:  # ValueError: NUL in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{in_one_line(str(source))}: cannot be read ({reason})") from None
    if len(content) > most_bytes:
        raise InputError(f"{source}: is larger than {most_bytes >> 20} MiB, the most that such a file may have")
    for mark, name in _MARKS.items():
        if content.startswith(mark):
            raise InputError(f"{source}: is written in {name}; {_SAVE_AS}")
    if b"\0" in content:
        raise InputError(f"{source}: is not a text file (it holds NUL bytes); if it should be one, {_SAVE_AS}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{source}: line {line}: is not UTF-8 text (byte 0x{content[error.start]:02x}); {_SAVE_AS}"
        ) from None


def read_json(source: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: as :func:`read_text` and :func:`parse_json`.
    """
    return parse_json(read_text(source), source)


def parse_json(text: str, source: object, *, finite: bool = True) -> Any:
    """Read a JSON text.

    Args:
        text: The text.
        source: Where it is from, for messages.
        finite: Refuse NaN and infinity. Logs of numbers may hold them.

    Raises:
        InputError: not JSON, too deep, a key twice in one mapping, a number or text that nothing can use.
    """

    def constant(name: str) -> float:
        if finite:
            raise _Unusable(f"{name} is not a number; write a finite one, or null")
        return float(name)

    def number(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else constant(digits[:20])

    try:
        data = json.loads(
            text, object_pairs_hook=_mapping, parse_int=_whole_number, parse_float=number, parse_constant=constant
        )
        if _levels(data) > MOST_LEVELS:
            raise RecursionError
        if _ESCAPED.search(text):
            _check_texts(data)
    except json.JSONDecodeError as error:
        what = "it is empty" if not text.strip() else f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise InputError(f"{source}: not a valid JSON file ({what}); mend it, or make it again") from None
    except RecursionError:
        raise InputError(f"{source}: more than {MOST_LEVELS} levels of brackets inside each other; mend it") from None
    except _Unusable as error:
        raise InputError(f"{source}: {error}") from None
    return data


def read_json_lines(source: Path) -> list[dict[str, Any]]:
    """Read a log of JSON mappings, one a line; NaN and infinity are read. A last line that is cut off is left out.

    Raises:
        InputError: unreadable, or another line is broken.
    """
    lines = read_text(source).splitlines()
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            record = parse_json(line, source, finite=False)
        except InputError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        elif number < len(lines):
            raise InputError(f"{source}: line {number} is broken; remove that line, or move the file away")
    return records


def read_yaml(source: Path) -> Any:
    """Read a YAML file.

    Raises:
        InputError: as :func:`read_text` and :func:`parse_yaml`.
    """
    return parse_yaml(read_text(source, MOST_YAML_BYTES), source)


def parse_yaml(text: str, source: object) -> Any:
    """Read a YAML text: mappings, lists, texts, numbers, booleans, null.

    Args:
        text: The text.
        source: Where it is from, for messages.

    Raises:
        InputError: not YAML, too deep, too many values once aliases are written out, a key twice in one mapping, a
            number or text that nothing can use, or a tag for an object.
    """
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(f"{source}: line {line}: not valid YAML (a character that no text has); remove it") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = in_one_line(error.problem or error.context or "")
        advice = "; indent with spaces, not tabs" if "'\\t'" in problem else "; mend it"
        raise InputError(f"{source}: {where}not valid YAML ({problem}){advice}") from None
    except (ValueError, OverflowError):  # an escape beyond the last character, a version of 5,000 digits
        raise InputError(f"{source}: not valid YAML (an escape or directive without meaning); mend it") from None
    finally:
        if loader is not None:
            loader.dispose()


class _Unusable(ValueError):
    """A value that is well written but that nothing can use; in words."""


def _whole_number(digits: str) -> int:
    if len(digits) > _MOST_DIGITS or (value := int(digits)).bit_length() > _BITS:
        raise _Unusable(f"{digits[:20]}... is too large for a whole number")
    return value


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise _Unusable(f"'{in_one_line(twice)}' is given twice in one mapping; remove one of them")
    return found


def _levels(data: Any) -> int:
    count, level = 0, [data] if isinstance(data, dict | list) else []
    while level:
        count += 1
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return count


def _check_texts(data: Any) -> None:
    if isinstance(data, str):
        _check_text(data)
    elif isinstance(data, dict | list):
        for inner in (*data, *data.values()) if isinstance(data, dict) else data:
            _check_texts(inner)


def _check_text(text: str) -> None:
    if "\0" in text:
        raise _Unusable("a text holds NUL; remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Unusable("a text holds half a character (a lone surrogate); remove it") from None


_TAG = "tag:yaml.org,2002:"
_NUMBERS = (f"{_TAG}int", f"{_TAG}float")
#: Tags that a text without quotes could get, but stays a text: dates, and ``=``.
_AS_TEXT = (f"{_TAG}timestamp", f"{_TAG}value")
_PLAIN = (*_NUMBERS, *(f"{_TAG}{kind}" for kind in ("null", "bool", "str", "seq", "map")), None)


class _Loader(yaml.SafeLoader):
    """Plain data within bounds; see the module's text."""

    yaml_constructors = {tag: made for tag, made in yaml.SafeLoader.yaml_constructors.items() if tag in _PLAIN}  # noqa: RUF012
    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in rules if tag not in _AS_TEXT]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = self._depth = 0
        #: Anchor -> nodes under it, aliases written out; known once it is closed.
        self._sizes: dict[str, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        before = self._nodes
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in self.anchors and event.anchor not in self._sizes:
                raise _refusal(f"'*{event.anchor}' stands inside what it stands for", event)
            self._nodes += self._sizes.get(str(event.anchor), 0)
        else:
            self._nodes += 1
        self._depth += 1
        if self._nodes > MOST_NODES:
            raise _refusal(f"more than {MOST_NODES:,} values, aliases written out", event)
        if self._depth > MOST_LEVELS:
            raise _refusal(f"more than {MOST_LEVELS} levels inside each other", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not isinstance(event, yaml.AliasEvent) and event.anchor:
            self._sizes[event.anchor] = self._nodes - before
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refusal("a key must be one word or number", key)
            if (key.tag, key.value) in seen:
                raise _refusal(f"'{key.value}' is given twice in one mapping", key)
            seen.add((key.tag, key.value))
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag in _NUMBERS and len(node.value) > _MOST_DIGITS:
            raise _refusal(f"{node.value[:20]}... is too long for a number", node)
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, str):
                _check_text(value)
        except _Unusable as error:
            raise _refusal(str(error), node) from None
        except (ValueError, LookupError):
            raise _refusal(f"'{node.value}' is no {node.tag.removeprefix(_TAG)}", node) from None
        if isinstance(value, int) and value.bit_length() > _BITS:
            raise _refusal(f"{node.value[:20]} is too large for a whole number", node)
        if isinstance(value, float) and not math.isfinite(value):
            raise _refusal(f"{node.value} is not a finite number", node)
        return value


def _refusal(what: str, at: yaml.Node | yaml.Event) -> yaml.MarkedYAMLError:
    mark: Any = at.start_mark
    return yaml.MarkedYAMLError(problem=what, problem_mark=mark)
