"""``duomod settings``: every setting with its default, range and meaning, from the models themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from duomod.commands import COMMANDS, Command, PageSettings
from duomod.config import PRESETS, TrainConfig, train_config
from duomod.errors import InputError, nearest_name
from duomod.experiments.executor import EXECUTORS
from duomod.experiments.settings import PipelineConfig
from duomod.flags import Option, bounds_of, form_of, kind_of, options_of, without_none
from duomod.methods.registry import METHODS
from duomod.methods.settings import MethodConfig
from duomod.sampling.transforms.base import Transform
from duomod.sampling.transforms.registry import TRANSFORMS
from duomod.settings import models_in


@dataclass(frozen=True)
class Row:
    """One setting: as written, default, range or choices, meaning, and what each preset changes."""

    name: str
    default: str
    values: str
    meaning: str
    presets: dict[str, str]


@dataclass(frozen=True)
class Section:
    """The settings of a command, of training, or of a method."""

    title: str
    about: str
    rows: tuple[Row, ...]


def run_settings(settings: PageSettings) -> list[Section]:
    """The sections of the page.

    Raises:
        InputError: nothing of that name has settings, or it is a broken plug-in.
    """
    if settings.name is None:
        every = [_of_command(command) for command in COMMANDS]
        return [*every, experiment_section(), *executor_sections(), training_section(), _of_all_methods()]
    for command in COMMANDS:
        if command.name == settings.name:
            more = {
                "train": [training_section(), _of_all_methods()],
                "pipeline": [experiment_section(), *executor_sections()],
            }
            return [_of_command(command), *more.get(command.name, [])]
    if settings.name in METHODS.names():
        return [_of_method(settings.name)]
    if settings.name == "transforms":
        return [_of_transforms(TRANSFORMS.available())]
    if settings.name in TRANSFORMS.names():
        return [_of_transforms({settings.name: TRANSFORMS.load(settings.name)})]
    known = [*(command.name for command in COMMANDS), *METHODS.names(), "transforms", *TRANSFORMS.names()]
    raise InputError(
        f"'{settings.name}' is no command, method or transform.{nearest_name(settings.name, known)}"
        " The lists: duomod --help, duomod methods, duomod settings transforms"
    )


def _of_command(command: Command) -> Section:
    return Section(
        f"duomod {command.name}", command.help, tuple(_option_row(option) for option in options_of(command.settings))
    )


def training_section() -> Section:
    """What decides the numbers of a training."""
    about = (
        "What decides a training's numbers: written as --set NAME=VALUE, and in an experiment's file under"
        " training: settings:. The presets other than default change what the last column says."
    )
    return Section(
        "Training settings", about, tuple(_rows(TrainConfig, {name: train_config(name) for name in PRESETS}))
    )


def experiment_section() -> Section:
    """What an experiment's file can say."""
    short = ", ".join(f"{name} for {target}" for name, target in PipelineConfig.shortcuts.items())
    about = f"The YAML file of duomod pipeline. At the top level may also be written: {short}."
    return Section("Experiment file", about, tuple(_rows(PipelineConfig, {})))


def executor_sections() -> list[Section]:
    """What an experiment's file can say of what runs its steps."""
    sections = []
    for name in EXECUTORS.names():
        about = f"In an experiment's file under executor:, beside name: {name}."
        sections.append(Section(f"Executor {name}", about, tuple(_rows(EXECUTORS.load(name).Config, {}))))
    return sections


def _of_all_methods() -> Section:
    about = "Settings that every method has: written as --method_set NAME=VALUE. duomod settings METHOD adds its own."
    return Section("Method settings", about, _method_rows(MethodConfig))


def _of_method(name: str) -> Section:
    method = METHODS.load(name)
    about = f"{method.info.title}: written as --method_set NAME=VALUE. Defaults are the paper's."
    return Section(f"Method {name}", about, _method_rows(method.Config))


def _method_rows(config: type[MethodConfig]) -> tuple[Row, ...]:
    return tuple(_rows(config, {"reference": config.preset("reference")}))


def _of_transforms(found: Mapping[str, type[Transform]]) -> Section:
    """A broken plug-in has been reported by name, and is left out."""
    about = "Entries of the list augment, in any order: --set 'augment=[NAME, {name: NAME, PARAMETER: VALUE}]'."
    rows = [
        Row(name, "", "", (cls.__doc__ or "").partition("\n")[0], {}) if row.name == f"{name}.name" else row
        for name, cls in found.items()
        for row in _rows(cls, {}, f"{name}.")
    ]
    return Section("Transforms", about, tuple(rows))


def _option_row(option: Option) -> Row:
    name = ", ".join([*option.names, *([option.off] if option.off else [])]) or option.field.upper()
    default = "needed" if option.required else f"see {option.field}" if option.shortcut else shown(option.default)
    return Row(name, default, _values(option.kind, option.bounds), option.meaning, {})


def _rows(model: type[BaseModel], presets: Mapping[str, BaseModel], before: str = "") -> Iterator[Row]:
    """The settings in a model and the models in it; ``presets`` are compared with the defaults."""
    for name, field in model.model_fields.items():
        inner = next(models_in(field.annotation), None)
        values = {preset: getattr(settings, name) for preset, settings in presets.items()}
        if inner is not None:
            many = "[]" if str(field.annotation).startswith("tuple") else ""
            nested = {preset: value for preset, value in values.items() if isinstance(value, BaseModel)}
            yield from _rows(inner, nested, f"{before}{name}{many}.")
        else:
            default = field.get_default(call_default_factory=True)
            changes = {preset: shown(value) for preset, value in values.items() if value != default}
            yield _field_row(before + name, field, changes)


def _field_row(name: str, field: FieldInfo, changes: dict[str, str]) -> Row:
    default = "needed" if field.is_required() else shown(field.get_default(call_default_factory=True))
    form, element = form_of(without_none(field.annotation))
    several = {"commas": ",...", "many": ",..."}.get(form, "")
    kind = "name: value" if form == "assignments" else kind_of(element) + several
    values = _values(kind, bounds_of(field))
    return Row(name, default, values, field.description or "", changes)


def _values(kind: str, bounds: str) -> str:
    """The range or the choices; where there are none, what kind of value it is."""
    return bounds or ", ".join(kind.split("|"))


def shown(value: Any) -> str:
    """A value as it is written in an option or a file."""
    if value is None or value in ((), {}):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {shown(entry)}' for key, entry in value.items())}}}"
    if isinstance(value, list) or (isinstance(value, tuple) and any(isinstance(entry, BaseModel) for entry in value)):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, tuple):
        return ",".join(map(shown, value))
    return str(value) or '""'


def as_text(sections: Sequence[Section]) -> str:
    """The page as plain text in columns."""
    return "\n\n".join("\n".join([section.title, section.about, "", *_columns(section.rows)]) for section in sections)


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    """The table's head and lines; the column of presets only where one changes something."""
    with_presets = any(row.presets for row in rows)
    table = [["setting", "default", "values", "meaning", *(["presets"] if with_presets else [])]]
    for row in rows:
        changes = "; ".join(f"{preset}: {value}" for preset, value in row.presets.items())
        table.append([row.name, row.default, row.values, row.meaning, *([changes] if with_presets else [])])
    return table


def _columns(rows: Sequence[Row]) -> list[str]:
    table = _cells(rows)
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def as_markdown(sections: Sequence[Section]) -> str:
    """The page as docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Every option of every command and every setting of a training. This page is made from the models in the code:",
        "`duomod settings --markdown > docs/settings.md` writes it anew, and a test keeps it true.",
        "`duomod settings METHOD` shows the settings of one method, `--json` gives the same to programs.",
    ]
    for section in sections:
        head, *rows = _cells(section.rows)
        lines += ["", f"## {section.title}", "", section.about, "", _line(head), "|---" * len(head) + "|"]
        lines += [_line([f"`{row[0]}`", *row[1:]]) for row in rows]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"


def as_data(sections: Sequence[Section]) -> dict[str, Any]:
    """The page as JSON data."""
    return {"sections": [asdict(section) for section in sections]}
