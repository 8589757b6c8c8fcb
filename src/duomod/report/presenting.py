"""What of a collection may be shown: never an absolute path; with ``--anonymous`` nothing that names a case."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from duomod.datasets.case_names import shown
from duomod.report.sources.collect import Collection, Method, Seed
from duomod.report.sources.files import CaseFiles
from duomod.report.sources.records import Beside, Prediction, PredictionSettings, Training

Value = TypeVar("Value")

#: A path from the root of a disk on, inside a text; its last name is the group.
_NAME = r"""[^\s/\\'",;:()<>|]+"""
_ABSOLUTE = re.compile(rf"(?<![\w.:/\\-])(?:file:/*|[A-Za-z]:)?[/\\](?:{_NAME}[/\\])*({_NAME})")
_STARTS_AT_ROOT = re.compile(r"(file:/|[A-Za-z]:)?[/\\]|~[\w.-]*[/\\]")
#: Texts in settings that are words of duomod's own; all others may be anything.
_OWN_WORDS = ("model", "preset", "precision", "networks")
_PLAIN_KEY = re.compile(r"[a-z][a-z0-9_]*")
_PLAIN_TEXT = re.compile(r"[\w .+-]{1,60}")
_DEVICE = re.compile(r"[a-z]+(:\d+)?")


class Places:
    """Folders that are known, so that paths in texts can be shortened also where they hold blanks."""

    def __init__(self, folders: Iterable[Path]) -> None:
        absolute = {f"{path.absolute()}/" for path in folders} | {f"{path.resolve()}/" for path in folders}
        self._starts = sorted((start for start in absolute if len(start) > 1), key=len, reverse=True)

    def shortened(self, text: str) -> str:
        """A text whose absolute paths begin below a known folder, or are their last name."""
        for start in self._starts:
            text = text.replace(start, "")
        return _ABSOLUTE.sub(r"\1", shown(text))

    def setting(self, value: str) -> str:
        """The value of a setting, of a path its last name."""
        if _STARTS_AT_ROOT.match(value):
            return re.split(r"[/\\]", value.rstrip("/\\"))[-1] or "/"
        return self.shortened(value)


def places_of(collection: Collection, cases: Sequence[CaseFiles]) -> Places:
    """The folders of a report's files."""
    folders = {Path.cwd(), Path.home()}
    for method in collection.methods:
        folders |= {seed.table.path.parent.parent for seed in method.seeds}
    for entry in cases:
        folders |= {path.parent for path in (entry.scan, entry.truth, *entry.predictions.values()) if path is not None}
    return Places(folders)


def without_paths(collection: Collection, places: Places) -> Collection:
    """The same collection; what is shown of it holds no absolute path."""

    def presented(method: Method, seed: Seed) -> Seed:
        beside = replace(
            seed.beside,
            settings=_mapped(seed.beside.settings, places.setting),
            training=Training.model_construct(**_mapped(dict(seed.beside.training), places.shortened)),
            left_out=tuple(replace(one, reason=places.shortened(one.reason)) for one in seed.beside.left_out),
        )
        return replace(seed, beside=beside)

    methods = []
    for method in collection.methods:
        texts = {
            "base": method.name,
            "missing": tuple(map(places.shortened, method.summary.missing)),
            "notes": tuple(map(places.shortened, method.summary.notes)),
        }
        seeds = tuple(presented(method, seed) for seed in method.seeds)
        methods.append(replace(method, seeds=seeds, summary=method.summary.model_copy(update=texts)))
    return replace(collection, methods=tuple(methods))


def anonymous(collection: Collection, cases: Sequence[CaseFiles]) -> tuple[Collection, list[CaseFiles]]:
    """Number the cases; leave out all texts that come from outside.

    Kept are scores, the names of methods, runs and classes, numbers and switches of the settings, and checksums.

    Returns:
        The collection and its cases; these still know where their files are, which is shown nowhere.
    """
    alias = {case: f"case_{number:03}" for number, case in enumerate(collection.cases, start=1)}
    methods = []
    for method in collection.methods:
        summary = method.summary
        remarks = len(summary.missing) + len(summary.notes)
        texts = {
            "base": method.name,
            "cases": tuple(alias[case] for case in summary.cases),
            "missing": (f"{remarks} remark(s) that may name cases",) if remarks else (),
            "notes": (),
            "worst_cases": tuple((alias[case], text) for case, text in summary.worst_cases),
        }
        seeds = tuple(_anonymous_seed(seed, alias) for seed in method.seeds)
        methods.append(replace(method, seeds=seeds, summary=summary.model_copy(update=texts)))
    return replace(collection, methods=tuple(methods)), [replace(entry, case=alias[entry.case]) for entry in cases]


def _anonymous_seed(seed: Seed, alias: dict[str, str]) -> Seed:
    info = seed.table.info
    if info is not None:
        nothing = {"predictions": "", "truth": "", "dataset": "", "case_keys": {}, "missing_predictions": ()}
        info = info.model_copy(update=nothing)
    table = replace(seed.table, path=Path(seed.name), cases=tuple(alias[case] for case in seed.table.cases), info=info)
    beside, training = seed.beside, seed.beside.training
    organs = None if beside.organs is None else beside.organs.assign(Filename=beside.organs["Filename"].map(alias))
    device = training.device if _DEVICE.fullmatch(training.device) else ""
    shown = Beside(
        organs=organs,
        curves=beside.curves,
        settings=_numbers_of(beside.settings),
        training=training.model_copy(update={"device": device, "finished": "", "networks": ""}),
        predictions=beside.predictions,
        prediction=Prediction(settings=PredictionSettings(model_sha256=beside.prediction.settings.model_sha256)),
        left_out=tuple(replace(one, reason=not_told(one.reason)) for one in beside.left_out),
    )
    return replace(seed, table=table, beside=shown)


def not_told(text: str) -> str:
    """What stands in an anonymous report for a sentence that may name somebody."""
    return "told only where the report was made, because it may name a case"


def _numbers_of(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings that are numbers or switches, and the few texts that are words of duomod's own."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if not _PLAIN_KEY.fullmatch(key):
            continue
        if isinstance(value, dict):
            found[key] = _numbers_of(value)
        elif value is None or isinstance(value, bool | int | float):
            found[key] = value
        elif isinstance(value, list):
            found[key] = f"{len(value)} values"
        elif key in _OWN_WORDS and _PLAIN_TEXT.fullmatch(value):
            found[key] = value
    return {key: value for key, value in found.items() if value != {}}


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of plain data with every text in it changed, keys of mappings too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(str(key)): _mapped(inner, change) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(inner, change) for inner in value]
    return value
