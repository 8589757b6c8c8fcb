"""The ``duomod`` command: every command's flags are made from its settings; mistakes become messages and exit codes.

Nothing heavy is imported before a command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from duomod import console
from duomod.commands import COMMANDS, Command, load, runner
from duomod.errors import InputError
from duomod.failure import complain, tell, threads_told
from duomod.flags import Option, data_from, flag_name, options_of
from duomod.settings import Settings, problems_of
from duomod.termination import Terminated, termination_raises

#: ``--data-path`` and ``--data_path`` are the same option; the second is what the original scripts used.
_SETTINGS = {"token_normalize_func": lambda name: name.replace("-", "_") if len(name) > 1 else name}
_JSON, _IN_ORDER, _DEBUG = "json_", "in_order_", "debug_"
#: Before or after a command. :func:`main` looks for it among what was typed: an error may come before it is parsed.
_DEBUG_OPTION = typer.Option("--debug", help="Print the traceback of whatever ends the command.")

app = typer.Typer(
    name="duomod",
    help="Class-imbalanced, semi-supervised segmentation of 3D medical images: preprocess, train, predict, evaluate,"
    " aggregate, compare, report, view.\n\nExample: duomod demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=_SETTINGS,
)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
    debug: Annotated[bool, _DEBUG_OPTION] = False,
) -> None:
    if version:
        from duomod.version import __version__

        print(f"duomod {__version__}")
        raise typer.Exit


def run(command: Command, settings: Settings, as_json: bool = False) -> None:
    """Run a command and print what it found: a table, or one JSON document; the path of its result last."""
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        result = runner(command)(settings)
    path = str(result) if isinstance(result, Path) else None
    if command.output is not None:
        output = load(command.output)
        if as_json:
            document = {"result": path} if path else {}
            print(
                json.dumps({**document, **output.data(settings, result)}, indent=1, ensure_ascii=False, allow_nan=False)
            )
        else:
            print(output.text(settings, result))
        output.check(settings, result)
    if path and not as_json:
        print(path)


def settings_from(command: Command, given: dict[str, Any]) -> Settings:
    """Make a command's settings of what was typed.

    Args:
        command: The command.
        given: Option field -> text, list of texts, or switch.

    Raises:
        InputError: lists everything wrong by the option's name.
    """
    model = command.settings
    if no_text := _without_text(given.values()):
        raise InputError(no_text)
    data, problems = data_from(model, given)
    try:
        settings = model.model_validate(data)
    except ValidationError as error:
        see = f"duomod settings {command.name}"
        problems += problems_of(error, model, see=see, name=lambda place: flag_name(model, place))
    if problems:
        raise InputError(problems)
    return settings


def _without_text(typed: Iterable[Any]) -> list[str]:
    """Sentences about names that hold bytes which are no text: records and half of the libraries cannot take them."""
    values = [str(one) for value in typed for one in (value if isinstance(value, list) else [value])]
    wrong = [value for value in values if any("\ud800" <= letter <= "\udfff" for letter in value)]
    coding = sys.getfilesystemencoding()
    return [f"{value}: a name with bytes that are no {coding} text; rename it (or set PYTHONUTF8=1)" for value in wrong]


def _parameter(option: Option) -> inspect.Parameter:
    """An option as typer wants it; texts are parsed by the model, so that there is one parser and one message."""
    once = option.flag.positional and option.form == "one"
    kind: Any = bool if option.form == "switch" else str if once else list[str]
    # What is missing is said by the model, together with all that is wrong; a lone argument by the parser.
    needed = option.required and option.flag.positional
    shown = {"commas": f"<{option.kind},...>", "assignments": "<name=value>"}.get(option.form, f"<{option.kind}>")
    facts = "; ".join(part for part in (_default(option), option.bounds, _must_be_given(option)) if part)
    text = f"{option.meaning}  [{facts}]" if facts else option.meaning
    if option.flag.positional:
        info: Any = typer.Argument(help=text, show_default=False)
    else:
        names = [f"{option.names[0]}/{option.off}" if option.off else option.names[0], *option.names[1:]]
        info = typer.Option(*names, help=text, show_default=False, metavar=None if option.form == "switch" else shown)
    return inspect.Parameter(
        option.field.replace(".", "__"),
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if needed else None,
        annotation=Annotated[kind if needed else kind | None, info],
    )


def _last(option: Option, texts: list[str]) -> str | list[str]:
    """What counts of an option that was typed several times: all, or the last, which is said."""
    values: dict[str, set[str]] = {}
    for text in texts:
        key, _, value = text.partition("=") if option.form == "assignments" else ("", "", text)
        values.setdefault(key.strip(), set()).add(value)
    for key in [key for key, given in values.items() if len(given) > 1 and option.form != "many"]:
        console.say(f"{option.names[0]} {key}".rstrip() + ": is given several times; the last counts")
    return texts if option.form in ("many", "assignments") else texts[-1]


def _must_be_given(option: Option) -> str:
    return "required" if option.required and not option.flag.positional and not option.flag.or_positional else ""


def _default(option: Option) -> str:
    """A default in the words of a help page; that of a switch, of nothing, and of what a preset sets are left out."""
    if option.required or option.shortcut or option.form == "switch" or option.default in (None, (), {}):
        return ""
    value = option.default
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"default: {text or chr(34) * 2}"


def _in_order(options: tuple[Option, ...]) -> list[Option]:
    return [option for option in options if option.flag.or_positional]


def _callback(command: Command) -> Callable[..., None]:
    """The function that typer calls: its signature is the command's options."""
    options = options_of(command.settings)
    parameters = [_parameter(option) for option in options]
    in_order = _in_order(options)
    if in_order:
        names = " ".join(option.field.upper() for option in in_order)
        info = typer.Argument(help="Instead of the options of these names.", metavar=names, show_default=False)
        parameters.append(_extra(_IN_ORDER, list[str] | None, info))
    parameters.append(_extra(_DEBUG, bool | None, _DEBUG_OPTION))
    if command.output is not None:
        info = typer.Option("--json", help="Print one JSON document instead of the table.")
        parameters.append(_extra(_JSON, bool | None, info))

    def call(**typed: Any) -> None:
        as_json = bool(typed.pop(_JSON, False))
        typed.pop(_DEBUG, None)
        given = {name.replace("__", "."): value for name, value in typed.items() if value not in (None, [], ())}
        for option in options:
            if option.field in given and option.form != "switch" and not option.flag.positional:
                given[option.field] = _last(option, given[option.field])
        values = given.pop(_IN_ORDER, None)
        if values:
            names = [option.field for option in in_order]
            if len(values) != len(names) or any(name in given for name in names):
                flags = ", ".join(option.names[0] for option in in_order)
                raise InputError(f"give {' and '.join(name.upper() for name in names)}, or the options {flags}")
            given |= dict(zip(names, values, strict=True))
        settings = settings_from(command, given)
        try:
            run(command, settings, as_json)
        except EOFError as error:  # typer would take it for the end of what the user types
            raise RuntimeError(f"the end came too early: {error}") from error

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    call.__doc__ = command.help
    return call


def _extra(name: str, kind: Any, info: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, info])


for _command in COMMANDS:
    app.command(_command.name, help=_command.help, epilog=f"Example: {_command.example}", context_settings=_SETTINGS)(
        _callback(_command)
    )


def main(arguments: list[str] | None = None) -> None:
    """Entry point: run a command; whatever ends it becomes a line and an exit code (see :mod:`duomod.failure`)."""
    console.take_any_text()
    typed = sys.argv[1:] if arguments is None else arguments
    try:
        with termination_raises(), threads_told():
            app(arguments)
    except Terminated:
        complain("ended by SIGTERM")
        raise
    except SystemExit:
        raise
    except BrokenPipeError:
        sys.exit(1)
    except BaseException as error:  # the one place where what nobody foresaw ends
        sys.exit(tell(error, debug="--debug" in typed))


if __name__ == "__main__":
    main()
