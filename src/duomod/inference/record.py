"""What a folder of predictions says of itself: ``prediction.json`` (what made which label map) and ``failed.json``.

Only what ``prediction.json`` lists is ours: nothing else in the folder is replaced or removed, and label maps of
another model are never left among those of this one without a word.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duomod.datasets.case_names import check_case_id
from duomod.datasets.folder import content, listed
from duomod.errors import InputError
from duomod.workspace import PREDICTED, read_json, write_json

if TYPE_CHECKING:
    from duomod.inference.failures import Failure
    from duomod.inference.inputs import Case, Loaded

#: Beside ``prediction.json`` while some scans could not be predicted.
FAILED = "failed.json"

#: What it says by case: :class:`Record`'s fields of these names.
_PARTS = ("cases", "scans", "modalities", "facts")

#: What was found out about a case is written at least so often (seconds) and at the end. A case of which it is not,
#: after a kill, is predicted again.
_EVERY = 10.0


def target(output: Path, case_id: str) -> Path:
    """Where a case's label map goes."""
    return output / f"{case_id}.nii.gz"


def probabilities_file(output: Path, case_id: str) -> Path:
    """Where a case's probabilities go."""
    return output / "probabilities" / f"{case_id}.npz"


@dataclass
class Record:
    """The record of one run in its folder.

    Attributes:
        output: The folder.
        model: The checkpoint.
        settings: All that the label maps depend on besides their scans.
        cases: What each case is made from: its identity.
        scans: The scan's file of each case that has one.
        modalities: How each scan was taken.
        facts: What told that, and what is doubtful.
        others: Label maps of other cases, by another model or with other settings.
    """

    output: Path
    model: Path
    settings: Mapping[str, Any]
    cases: dict[str, str] = field(default_factory=dict)
    scans: dict[str, str] = field(default_factory=dict)
    modalities: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    _same: bool = False
    _written: float = 0.0

    @classmethod
    def open(
        cls, output: Path, model: Path, settings: Mapping[str, Any], cases: Iterable[Case], overwrite: bool
    ) -> Record:
        """Read what the folder says of itself, and look for what this run must not touch.

        Raises:
            InputError: label maps of unknown origin; or, without ``overwrite``, of other cases by another model or with
                other settings.
        """
        record = cls(output, model, settings)
        old, listed_cases = _read(output)
        record._same = old.get("settings") == settings
        if _of_masks(old.get("settings")) == _of_masks(settings):
            record.cases, record.scans, record.modalities, record.facts = (dict(old[part]) for part in _PARTS)
        wanted = {case.case_id for case in cases}
        there = {case: path.name for case, path in content(output).files.items()}
        unknown = [
            name for case, name in there.items() if case not in listed_cases or name != target(output, case).name
        ]
        record.others = tuple(
            case for case in there if case in listed_cases and case not in wanted and case not in record.cases
        )
        problems = []
        if unknown:
            problems.append(
                f"{output}: holds label maps that no {PREDICTED} beside them lists: {listed(unknown)};"
                " choose another folder"
            )
        if record.others and not overwrite:
            names = listed([there[case] for case in record.others])
            problems.append(
                f"{output}: holds label maps of another model, or made with other settings: {names}; choose another"
                " folder, or --overwrite removes them"
            )
        if problems:
            raise InputError(problems)
        return record

    def is_done(self, case: Case) -> bool:
        """Whether a case's label map was made from the same scan by the same model with the same settings."""
        made = self._same and self.cases.get(case.case_id) == case.identity and case.case_id in self.facts
        return made and target(self.output, case.case_id).is_file()

    def claim(self, cases: Sequence[Case], left: Sequence[Case]) -> None:
        """Write down what will make the results, after deleting those made otherwise."""
        for case_id in (*self.others, *(case.case_id for case in left)):
            # An older result must never pass for one of this run, wherever it is interrupted.
            target(self.output, case_id).unlink(missing_ok=True)
        for case_id in self.others:
            probabilities_file(self.output, case_id).unlink(missing_ok=True)
        for case in left:
            self.facts.pop(case.case_id, None)
            self.modalities.pop(case.case_id, None)
        self.cases |= {case.case_id: case.identity for case in cases}
        self.scans |= {case.case_id: str(case.scan.resolve()) for case in cases if case.scan is not None and case.stays}
        self.write()

    def learned(self, case: Case, loaded: Loaded) -> None:
        """Note what was found out about a case."""
        how = loaded.decision
        self.modalities[case.case_id] = how.modality
        self.facts[case.case_id] = {"told": how.by, "doubts": list(how.doubts)}

    def write(self, at_once: bool = True) -> None:
        """Write ``prediction.json``; where it need not be ``at_once``, only every few seconds."""
        if at_once or time.monotonic() - self._written > _EVERY:
            parts = {part: getattr(self, part) for part in _PARTS}
            write_json(self.output / PREDICTED, {"model": str(self.model), "settings": self.settings, **parts})
            self._written = time.monotonic()

    def write_failures(self, failures: Sequence[Failure]) -> None:
        """Write ``failed.json``, or remove it where nothing failed."""
        if not failures:
            (self.output / FAILED).unlink(missing_ok=True)
            return
        rows = [{"case": one.case, "file": str(one.file), "problems": list(one.problems)} for one in failures]
        write_json(self.output / FAILED, {"failed": rows})


def _read(output: Path) -> tuple[dict[str, Any], set[str]]:
    """What ``prediction.json`` says, empty where there is none that can be used; and the cases that it lists."""
    try:
        old = read_json(output / PREDICTED)
        if not isinstance(old, dict):
            return {}, set()
        parts = {part: old.get(part, {}) for part in _PARTS}
        if not all(isinstance(part, dict) for part in parts.values()):
            return {}, set()
        return {"settings": old.get("settings"), **parts}, {check_case_id(case) for case in parts["cases"]}
    except (InputError, ValueError):
        return {}, set()


def _of_masks(settings: Any) -> Any:
    """Settings without what changes no label map."""
    return {k: v for k, v in settings.items() if k != "probabilities"} if isinstance(settings, Mapping) else None


def unlisted(folder: Path) -> list[str]:
    """Names of label maps in a folder of predictions that its ``prediction.json`` does not list.

    None where it lists nothing, or is not there.
    """
    try:
        files = content(folder).files if (folder / PREDICTED).is_file() else {}
    except (InputError, OSError):
        return []
    _, known = _read(folder)
    return [path.name for case, path in files.items() if case not in known] if known else []
