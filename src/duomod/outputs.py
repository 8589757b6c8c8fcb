"""What commands print besides the path of their result: a table for people, or the same as data for ``--json``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from duomod.commands import PageSettings
from duomod.errors import DuomodError
from duomod.evaluation.results import read_result
from duomod.evaluation.texts import result_text
from duomod.experiments.settings import DemoSettings, StatusSettings
from duomod.methods.settings import CheckMethodSettings, MethodsSettings
from duomod.networks.settings import CheckNetworkSettings
from duomod.workspace import read_json


def _fine(settings: Any, result: Any) -> None:
    """Nothing to complain about."""


@dataclass(frozen=True)
class Output:
    """What a command prints, each from its settings and its result.

    Attributes:
        text: The table.
        data: What ``--json`` prints, without NaN.
        check: Raises after printing, where what was found is a failure.
    """

    text: Callable[[Any, Any], str]
    data: Callable[[Any, Any], dict[str, Any]]
    check: Callable[[Any, Any], None] = _fine


def _evaluation(settings: object, table: Path) -> dict[str, Any]:
    """The description of a result table, and its values: metric -> case -> one value a class."""
    result = read_result(table)
    values = {
        metric: {
            case: [None if np.isnan(value) else float(value) for value in row]
            for case, row in zip(result.cases, array, strict=True)
        }
        for metric, array in result.values.items()
    }
    return {**(result.info.model_dump(mode="json") if result.info else {}), "values": values}


def _written(settings: object, text: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_json(text.with_suffix(".json"))
    return content


def _demo(settings: DemoSettings, page: Path) -> dict[str, Any]:
    from duomod.experiments.demo import summaries_of

    return {"summaries": [read_json(path.with_suffix(".json")) for path in summaries_of(settings)]}


def _demo_text(settings: DemoSettings, page: Path) -> str:
    from duomod.experiments.demo import comparison_of, summaries_of

    table = comparison_of(settings).read_text(encoding="utf-8").rstrip()
    return "\n".join([table, *map(str, summaries_of(settings))])


def _settings_of(method: str | None) -> list[Any]:
    """The section of the settings page about one method; nothing where none is named."""
    from duomod.settings_page import run_settings

    return [] if method is None else run_settings(PageSettings(name=method))


def _methods_text(settings: MethodsSettings, shown: Any) -> str:
    from duomod.settings_page import as_text

    return "\n\n".join([shown.as_text(), *(as_text([section]) for section in _settings_of(settings.name))])


def _methods_data(settings: MethodsSettings, shown: Any) -> dict[str, Any]:
    rows = [asdict(row) for section in _settings_of(settings.name) for row in section.rows]
    return {**shown.as_json(), **({"settings": rows} if settings.name else {})}


def _checks_text(settings: object, results: Any) -> str:
    return "\n".join(
        f"{'passed' if result.passed else 'FAILED'}  {result.rule}  {result.message}".rstrip() for result in results
    )


def _all_passed(settings: CheckMethodSettings | CheckNetworkSettings, results: Any) -> None:
    failed = [result.rule for result in results if not result.passed]
    if failed:
        name = settings.name or settings.plugin
        raise DuomodError(f"{name}: {len(failed)} of {len(results)} rules failed: {', '.join(failed)}")


def _page_text(settings: PageSettings, sections: Any) -> str:
    from duomod.settings_page import as_markdown, as_text

    return as_markdown(sections) if settings.markdown else as_text(sections)


def _page_data(settings: object, sections: Any) -> dict[str, Any]:
    from duomod.settings_page import as_data

    return as_data(sections)


def _status_text(settings: StatusSettings, rows: Any) -> str:
    from duomod.console import out
    from duomod.experiments.status import as_text, watch

    return as_text(watch(settings, rows) if out.is_terminal and not settings.once else rows)


EVALUATE = Output(lambda settings, table: result_text(table), _evaluation)
#: Commands that write what they print, and the same as JSON beside it.
WRITTEN = Output(lambda settings, text: text.read_text(encoding="utf-8").rstrip(), _written)
DEMO = Output(_demo_text, _demo)
METHODS = Output(_methods_text, _methods_data)
CHECKED = Output(_checks_text, lambda settings, results: {"rules": [asdict(result) for result in results]}, _all_passed)
STATUS = Output(_status_text, lambda settings, rows: {"steps": [asdict(row) for row in rows]})
SETTINGS = Output(_page_text, _page_data)
