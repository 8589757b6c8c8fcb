"""What a settings model is, and how the mistakes in one are told: every wrong field by name, in words, all at once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from duomod.errors import InputError, in_one_line, nearest_name

#: Lists and mappings inside each other that are looked into; whatever reads files allows fewer.
_DEEPEST = 100

Location = tuple[int | str, ...]
Model = TypeVar("Model", bound=BaseModel)


#: Longest text of a setting, in characters.
MOST_CHARACTERS = 4096
#: No text has these: all control characters but tab and line feed.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
#: How pydantic names the alternatives of a field among the steps that lead to it.
_CHOICE = re.compile(r"literal\[|function-|constrained-|nullable\[")
#: Texts of whole numbers beyond 63 bits.
_TOO_LARGE = re.compile(r"\s*[+-]?\d{19,}\s*")


class Settings(BaseModel):
    """Base of all settings: frozen, checked, unknown names refused. A field's description is its help.

    Numbers are finite, a switch's value is no number, texts have no control characters, ``~`` is the home folder.

    Attributes:
        command: What is typed after ``duomod`` to run with such settings.
        shortcuts: Further names of settings that lie deeper: name -> dotted field.
        contents: Fields that are mappings of settings, and the model that describes what is in them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    command: ClassVar[str] = ""
    shortcuts: ClassVar[Mapping[str, str]] = {}
    contents: ClassVar[Mapping[str, type[BaseModel]]] = {}

    @field_validator("*", mode="before")
    @classmethod
    def _is_sound(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = set(_kinds(cls.model_fields[info.field_name or ""].annotation))
        # The fields of a model inside are named by that model.
        inside = any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds)
        if inside and isinstance(value, Mapping):
            for name in value:
                if not isinstance(name, str):
                    raise ValueError(f"{_shown(name)}: should be the name of a setting")
        for text in () if inside else _texts_in(value):
            if found := _CONTROL.search(text):
                raise ValueError(
                    f"'{in_one_line(text)}' holds a control character ({in_one_line(found[0])}); remove it"
                )
            if len(text) > MOST_CHARACTERS:
                raise ValueError(f"'{in_one_line(text, 40)}' is longer than {MOST_CHARACTERS:,} characters")
            if int in kinds and _TOO_LARGE.fullmatch(text):
                raise ValueError(f"{in_one_line(text, 20)}: is too large for a whole number")
        if not inside:
            _check_numbers(value, switches=not kinds & {int, float} or bool(kinds & {bool, Any}))
        return _as_paths(value) if Path in kinds else value


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types of single values in an annotation; those of a mapping's values, ``Any``."""
    if get_origin(annotation) is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType, tuple, list):
        for part in get_args(annotation):
            yield from _kinds(part)
    elif get_origin(annotation) is dict:
        yield from _kinds(get_args(annotation)[1])
    elif get_origin(annotation) is not Literal:
        yield annotation


def _texts_in(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str | Path):
        yield str(value)
    elif isinstance(value, Mapping) and depth < _DEEPEST:
        for key, inner in value.items():
            yield from _texts_in(key, depth + 1)
            yield from _texts_in(inner, depth + 1)
    elif isinstance(value, list | tuple) and depth < _DEEPEST:
        for inner in value:
            yield from _texts_in(inner, depth + 1)


def _check_numbers(value: Any, switches: bool, depth: int = 0) -> None:
    if isinstance(value, bool) and not switches:
        raise ValueError(f"{value}: should be a number")
    if isinstance(value, int) and value.bit_length() > 63:
        raise ValueError("is too large for a whole number")
    if depth < _DEEPEST and isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            _check_numbers(inner, switches, depth + 1)


def _as_paths(value: Any) -> Any:
    """Texts that stand for paths, with ``~`` as the home folder; an empty one would silently be the working folder."""
    if isinstance(value, list | tuple):
        return [_as_paths(inner) for inner in value]
    if isinstance(value, str) and not value.strip():
        raise ValueError("is empty; give a path, or leave it out")
    # Shells leave it as it is after ``--option=`` and in files. A name such as ~scan stays, unless it is a user's.
    return os.path.expanduser(value) if isinstance(value, str | Path) and str(value).startswith("~") else value


def dotted(location: Location) -> str:
    """``("optim", "base_lr")`` as ``optim.base_lr``."""
    return ".".join(map(str, location))


def checked(model: type[Model], data: Any, *, source: str = "", see: str = "") -> Model:
    """Validate data that a user wrote.

    Args:
        model: The model they should fit.
        data: Usually a mapping.
        source: Where they came from, put before each problem (``file.yaml: ``).
        see: The command that lists the settings, named where one is unknown.

    Raises:
        InputError: one line for each wrong field.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InputError(problems_of(error, model, source=source, see=see)) from None


def problems_of(
    error: ValidationError,
    model: type[BaseModel],
    *,
    source: str = "",
    see: str = "",
    name: Callable[[Location], str] = dotted,
) -> list[str]:
    """One line for each wrong field: where it stands, its name, what is wrong, and the nearest name or choice."""
    lines = []
    problems = error.errors(include_url=False)
    # Fields that take a word or a number.
    words = {_without_choices(one["loc"]) for one in problems if one["type"] == "literal_error"}
    either = words & {_without_choices(one["loc"]) for one in problems if one["type"] != "literal_error"}
    for problem in problems:
        kind, given = problem["type"], problem["input"]
        location = _without_choices(problem["loc"])
        if location in either and (kind == "literal_error") != isinstance(given, str):
            continue  # what was given is the other one
        if kind == "extra_forbidden":
            text = f"no such setting.{_nearest(model, location)}" + (f" The list: {see}" if see else "")
        else:
            in_tuple = bool(location) and isinstance(location[-1], int)
            text = _in_words(kind, problem["msg"], given, problem.get("ctx", {}), in_tuple)
        where = name(location)
        lines += [source + (f"{where}: " if where else "") + line for line in text.splitlines()]
    return list(dict.fromkeys(lines))


def _without_choices(location: Location) -> Location:
    return tuple(step for step in location if not _CHOICE.match(str(step)))


def _in_words(kind: str, message: str, given: Any, context: Mapping[str, Any], in_tuple: bool) -> str:
    """A validation error as a sentence about what was given."""
    shown = _shown(given)
    if kind == "missing":
        return "too few values" if in_tuple else "is needed"
    if kind == "literal_error":
        choices = str(context["expected"])
        known = [choice.strip("' ") for choice in choices.replace(" or ", ", ").split(",")]
        return f"{shown} is not one of {', '.join(known)}.{nearest_name(str(given), known)}"
    if kind in ("value_error", "assertion_error"):
        return str(context.get("error", message))
    if kind == "string_type" and isinstance(given, bool | int | float):
        return f"{shown} is no text; put quotes around it"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"{shown}: should be a mapping of names to values"
    text = message[0].lower() + message[1:].removesuffix(", unable to parse string as an integer")
    text = text.removesuffix(", unable to parse string as a number")
    return f"{shown}: {text.replace('input should', 'should')}"


def _shown(given: Any) -> str:
    """What was given, short enough for a line."""
    if isinstance(given, str):
        return repr(in_one_line(given))
    try:
        return in_one_line(str(given))
    except (ValueError, RecursionError):  # an integer of more digits than Python writes
        return type(given).__name__


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in an annotation such as ``Training | None`` or ``tuple[MethodEntry, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, tuple, list):
        for part in get_args(annotation):
            yield from models_in(part)


def _model_at(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """The model that describes what stands at a place inside another."""
    for step in location:
        if isinstance(step, int):
            continue
        field = model.model_fields.get(step)
        inner = getattr(model, "contents", {}).get(step) or (
            next(models_in(field.annotation), None) if field is not None else None
        )
        if inner is None:
            return None
        model = inner
    return model


def leaf_names(model: type[BaseModel]) -> Iterator[str]:
    """Dotted names of all settings in a model and the models in it."""
    for name, field in model.model_fields.items():
        inner = next(models_in(field.annotation), None)
        if inner is None:
            yield name
        else:
            yield from (f"{name}.{leaf}" for leaf in leaf_names(inner))


def _nearest(model: type[BaseModel], location: Location) -> str:
    """The known name that was probably meant, in the form of :func:`duomod.errors.nearest_name`."""
    parent = _model_at(model, location[:-1])
    if parent is None:
        return ""
    wrong, before = str(location[-1]), _path_within(model, location[:-1])
    deeper = [leaf for leaf in leaf_names(parent) if leaf.rpartition(".")[2] == wrong]
    if deeper:
        return f" Did you mean '{'.'.join([*before, deeper[0]])}'?"
    names = [*parent.model_fields, *(name for name in getattr(parent, "shortcuts", ()) if name.isidentifier())]
    return nearest_name(wrong, names).replace("mean '", f"mean '{''.join(f'{step}.' for step in before)}")


def _path_within(model: type[BaseModel], location: Location) -> list[str]:
    """The names that lead to a place, from the innermost mapping of settings on, as they would be written there."""
    path: list[str] = []
    for end in range(1, len(location) + 1):
        parent = _model_at(model, location[: end - 1])
        opens = location[end - 1] in getattr(parent, "contents", {})
        path = [] if opens else [*path, str(location[end - 1])]
    return path
