"""Command-line flags made from settings models, and back: a model's fields as options, its values as arguments."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from duomod.bounds import AtOnce, Classes
from duomod.option_values import assignment_texts, assignments, merged, nested
from duomod.settings import Location, Settings

#: Options that several commands have.
Gpu = Annotated[str, Field(description='GPU number; "" for the CPU.')]
FIRST_GPU = "0"
Anonymous = Annotated[
    bool, Field(description="Number the cases, and leave out file names, paths, and what may name people or machines.")
]
NumClasses = Annotated[Classes | None, Field(description="Classes, background included; checked.")]
Workers = Annotated[AtOnce, Field(description="Cases handled at the same time.")]
WORKERS = 2


class Flag:
    """How a field is written on the command line, where that is not ``--<its name>``.

    Args:
        names: The option's names, the first of which is written.
        positional: An argument instead of an option.
        or_positional: May also be given as an argument.
        write: Its value as text, where ``str`` does not serve.
    """

    def __init__(
        self,
        *names: str,
        positional: bool = False,
        or_positional: bool = False,
        write: Callable[[Any], str] = str,
    ) -> None:
        self.names, self.positional, self.or_positional, self.write = names, positional, or_positional, write


Dataset = Annotated[
    str | None,
    Field(description="Data set description: a built-in name or a YAML file. Default: recognised."),
    Flag("--dataset", "--task"),
]

#: One value, a switch, several options of the same name, values separated by commas, or ``name=value`` texts.
Form = Literal["one", "switch", "many", "commas", "assignments"]


@dataclass(frozen=True)
class Option:
    """One option of a command.

    Attributes:
        field: The model's field; dotted where the option is a shortcut to a deeper setting.
        names: As typed; the first is written. A positional argument has none.
        off: The option that switches a switch off, where it is on by default.
        form: How values are written.
        kind: What they are: ``int``, ``path``, ``gaussian|uniform`` ...
        bounds: Their range, such as ``0<=x<1``; or empty.
        required: Whether the option must be given.
        default: The value it has otherwise.
        meaning: What it does.
        flag: How it is written.
    """

    field: str
    names: tuple[str, ...]
    off: str | None
    form: Form
    kind: str
    bounds: str
    required: bool
    default: Any
    meaning: str
    flag: Flag

    @property
    def shortcut(self) -> bool:
        """Whether it stands for a setting inside another field."""
        return "." in self.field


def options_of(model: type[Settings]) -> tuple[Option, ...]:
    """The options of a command: arguments first, then what must be given, then the rest with the shortcuts."""
    own = [_option(name, field) for name, field in model.model_fields.items()]
    short = [_shortcut(model, flag, target) for flag, target in model.shortcuts.items()]

    def rank(option: Option) -> int:
        return 0 if option.flag.positional else 1 if option.required else 2

    return tuple(sorted([*own, *short], key=rank))


def _option(name: str, field: FieldInfo, dotted: str = "", flags: tuple[str, ...] = ()) -> Option:
    annotation = without_none(field.annotation)
    flag = next((part for part in field.metadata if isinstance(part, Flag)), Flag())
    names = flags or flag.names or (() if flag.positional else (f"--{name}",))
    form, element = form_of(annotation)
    off = f"--no_{names[0].removeprefix('--')}" if form == "switch" and field.default is True else None
    return Option(
        field=dotted or name,
        names=names,
        off=off,
        form=form,
        kind=kind_of(element),
        bounds=bounds_of(field),
        required=field.is_required(),
        default=None if field.is_required() else field.get_default(call_default_factory=True),
        meaning=field.description or "",
        flag=flag,
    )


def _shortcut(model: type[Settings], flag: str, target: str) -> Option:
    """The option that stands for a setting inside a mapping; it is described by that setting."""
    head, *path = target.split(".")
    inner: type[BaseModel] = model.contents[head]
    for step in path[:-1]:
        inner = next(part for part in get_args_or_self(inner.model_fields[step].annotation) if isinstance(part, type))
    return _option(path[-1], inner.model_fields[path[-1]], dotted=target, flags=(flag,))


def get_args_or_self(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; of anything else, that alone."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def without_none(annotation: Any) -> Any:
    """``X`` for ``X | None`` and ``X | Y`` for ``X | Y | None``."""
    parts = [part for part in get_args_or_self(annotation) if part is not type(None)]
    return parts[0] if len(parts) == 1 else Union[tuple(parts)]  # noqa: UP007 (the parts are known at run time only)


def form_of(annotation: Any) -> tuple[Form, Any]:
    """How a field of a type is written, and the type of one value."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is bool:
        return "switch", bool
    if origin is dict:
        return "assignments", str
    if origin is tuple:
        repeated = len(arguments) == 2 and arguments[1] is Ellipsis
        return ("many" if repeated and arguments[0] is Path else "commas"), arguments[0]
    return "one", annotation


def kind_of(annotation: Any) -> str:
    """A type in the words of a help page."""
    if get_origin(annotation) is Annotated:
        return kind_of(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    if get_origin(annotation) in (Union, UnionType):
        return kind_of(get_args(annotation)[0])
    return str(getattr(annotation, "__name__", annotation)).lower()


def bounds_of(field: FieldInfo) -> str:
    """The range of a number, such as ``0<=x<1``; of a tuple's elements where they have one."""
    found = list(field.metadata)
    for part in get_args(without_none(field.annotation)):
        if get_origin(part) is Annotated:
            found += get_args(part)[1:]
    low = high = ""
    for rule in _flat(found):
        if isinstance(rule, annotated_types.Ge):
            low = f"{rule.ge}<="
        elif isinstance(rule, annotated_types.Gt):
            low = f"{rule.gt}<"
        elif isinstance(rule, annotated_types.Le):
            high = f"<={rule.le}"
        elif isinstance(rule, annotated_types.Lt):
            high = f"<{rule.lt}"
    if low and not high:
        return f"x{'>=' if low.endswith('=') else '>'}{low.rstrip('<=')}"
    return f"{low}x{high}" if low or high else ""


def _flat(metadata: list[Any]) -> Iterator[Any]:
    for part in metadata:
        yield from part.metadata if isinstance(part, FieldInfo) else (part,)


def data_from(model: type[Settings], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Turn what was typed into data for a model.

    Args:
        model: The command's settings.
        given: Option field -> text, list of texts, or switch; only what was typed.

    Returns:
        The data, and a sentence about each text that should be ``name=value`` and is not.
    """
    data: dict[str, Any] = {}
    problems: list[str] = []
    ordered = sorted(options_of(model), key=lambda option: not option.shortcut)  # --set wins over its shortcuts
    for option in (option for option in ordered if option.field in given):
        value = given[option.field]
        if option.form == "commas":
            value = tuple(part.strip() for part in value.split(","))
        elif option.form == "assignments":
            value, wrong = assignments(value, option.names[0])
            problems += wrong
        elif option.form == "many":
            value = tuple(value)
        data = merged(data, nested(option.field, value))
    return data, problems


def arguments_of(settings: Settings) -> list[str]:
    """The arguments that make these settings again; only what differs from the defaults."""
    arguments, positional = [], []
    for option in options_of(type(settings)):
        if option.shortcut:
            continue
        value = getattr(settings, option.field)
        if value is None or (not option.required and value == option.default):
            continue
        texts = _texts(option, value)
        if option.flag.positional:
            positional += texts
        elif option.form == "switch":
            arguments.append(option.names[0] if value else str(option.off))
        else:
            for text in texts:
                arguments += [option.names[0], text]
    return [*arguments, *(["--"] if any(text.startswith("-") for text in positional) else []), *positional]


def to_argv(settings: Settings) -> list[str]:
    """The command line that runs a command with these settings; only what differs from the defaults."""
    return ["duomod", settings.command, *arguments_of(settings)]


def command_line(settings: Settings) -> str:
    """The same as one text to paste into this very shell."""
    return runnable(to_argv(settings))


def runnable(argv: Sequence[str]) -> str:
    """A command line that begins with ``duomod``, as a text for this shell, which may not have it on its PATH."""
    found = shutil.which("duomod")
    ours = found is not None and Path(found).parent == Path(sys.executable).parent
    return shlex.join(argv if ours else [sys.executable, "-m", *argv])


def _texts(option: Option, value: Any) -> list[str]:
    write = option.flag.write
    if option.form == "many":
        return [write(part) for part in value]
    if option.form == "commas":
        return [",".join(write(part) for part in value)]
    return assignment_texts(value) if option.form == "assignments" else [write(value)]


def flag_name(model: type[Settings], location: Location) -> str:
    """The option that a validation error is about, as it is typed."""
    field = ".".join(map(str, location))
    for option in options_of(model):
        if option.shortcut and f"{field}.".startswith(f"{option.field}."):
            return option.names[0]
    head = next((option for option in options_of(model) if location and option.field == location[0]), None)
    if head is None:
        return field
    rest = ".".join(str(step) for step in location[1:] if head.form == "assignments")
    name = head.names[0] if head.names else head.field.upper()
    return f"{name} {rest}".rstrip()
