"""From two folders of label maps to a table of metrics whose conventions are written beside it."""

from __future__ import annotations

import platform
import shutil
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from duomod.console import progress, say
from duomod.datasets.case_names import case_id
from duomod.datasets.folder import listed
from duomod.datasets.spec import numbered_classes
from duomod.datasets.split_lists import chosen_cases
from duomod.errors import InputError, nearest_name
from duomod.evaluation.cases import CaseScores, Pair, Settings, find_pairs, score_case
from duomod.evaluation.metrics import select_metrics
from duomod.evaluation.mix_ups import mix_ups
from duomod.evaluation.naming import Naming, find_naming
from duomod.evaluation.policy import DEFAULT_POLICY, POLICIES, OrganStatus
from duomod.evaluation.protocols import dhc_metrics
from duomod.evaluation.results import (
    ORGAN_COLUMNS,
    FloatArray,
    ResultInfo,
    build_frame,
    organs_path,
    read_info,
    sidecar,
    write_frame,
    write_info,
)
from duomod.evaluation.settings import RESULT_TABLE, TOLERANCE_MM, EvaluateSettings, Tolerance
from duomod.evaluation.texts import notes_of
from duomod.inference.record import unlisted
from duomod.version import __version__
from duomod.workers import Task, run_tasks
from duomod.workspace import PREDICTED, sha256, write_text


def _tolerances(tolerance_mm: Tolerance, naming: Naming) -> tuple[float, ...]:
    """Return the NSD tolerance of each class, or one for all.

    Raises:
        InputError: a class name is unknown, or the number of values does not fit.
    """
    organs = naming.classes[1:]
    if isinstance(tolerance_mm, dict):
        unknown = [name for name in tolerance_mm if name not in organs]
        if unknown:
            raise InputError(
                [f"tolerance for '{name}': no such class.{nearest_name(name, organs)}" for name in unknown]
            )
        return tuple(tolerance_mm.get(name, TOLERANCE_MM) for name in organs)
    values = tolerance_mm if isinstance(tolerance_mm, tuple) else (tolerance_mm,)
    if len(values) not in (1, len(organs)):
        raise InputError(f"{len(values)} tolerances for {len(organs)} classes; give one, or one for each class")
    return values


def _settings(naming: Naming, config: EvaluateSettings) -> Settings:
    if config.protocol == "dhc":
        if config.asd != "assd" or config.empty_policy not in (DEFAULT_POLICY, "dhc"):
            raise InputError("protocol dhc has its own ASD and empty-class policy; leave both options out")
        chosen, policy = dhc_metrics(config.metrics), "dhc"
    else:
        chosen, policy = select_metrics(config.metrics, config.asd), config.empty_policy
    return Settings(
        metrics=tuple(chosen),
        policy=policy,
        protocol=config.protocol,
        num_classes=naming.num_classes,
        tolerances_mm=_tolerances(config.tolerance, naming),
        label_merges=dict(naming.label_merges),
    )


def _default_output(pred_path: Path) -> Path:
    if pred_path.is_dir():
        return pred_path / RESULT_TABLE
    return pred_path.parent / f"{case_id(pred_path.name)}_{RESULT_TABLE}"


def _stored(folder: Path, pair: Pair, settings: Settings) -> CaseScores | None:
    """Return a case's scores from an earlier, unfinished run, if the files and settings are still the same."""
    try:
        scores = CaseScores.model_validate_json((folder / f"{pair.name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return scores if scores.key == pair.key(settings) else None


def _outcome(pair: Pair, settings: Settings) -> CaseScores | InputError:
    """A case's scores, or what is wrong with it: the problems of all cases are told together."""
    try:
        return score_case(pair, settings)
    except InputError as error:
        return error


def _zero_everywhere(scores: Sequence[CaseScores]) -> bool:
    detected = any(OrganStatus.DETECTED in case.status for case in scores)
    return not detected and any(sum(case.true_ml) > 0 and not case.missing for case in scores)


def _labels_seen(scores: Sequence[CaseScores], naming_hint: str) -> str:
    """Explain a result without a single hit: which labels each side has."""
    in_truth = Counter(c + 1 for case in scores for c, ml in enumerate(case.true_ml) if ml > 0)
    in_prediction = Counter(c + 1 for case in scores for c, ml in enumerate(case.predicted_ml) if ml > 0)

    def listed(counter: Counter[int]) -> str:
        return ", ".join(f"{label} (in {count} cases)" for label, count in sorted(counter.items())) or "none"

    return (
        f"No organ of any case overlaps with the truth. Labels in the truth: {listed(in_truth)}; in the predictions:"
        f" {listed(in_prediction)}. Check that both use the same label numbers and show the same scans{naming_hint}."
    )


def _organ_frame(scores: Sequence[CaseScores], classes: Sequence[str]) -> pd.DataFrame:
    rows = [
        (
            case.name,
            label,
            classes[label],
            str(case.status[label - 1]),
            case.true_ml[label - 1],
            case.predicted_ml[label - 1],
        )
        for case in scores
        for label in range(1, len(classes))
    ]
    return pd.DataFrame(rows, columns=ORGAN_COLUMNS)


def _organ_counts(scores: Sequence[CaseScores], classes: Sequence[str]) -> dict[str, dict[str, int]]:
    counts = {
        name: {str(status): sum(case.status[index] == status for case in scores) for status in OrganStatus}
        for index, name in enumerate(classes[1:])
    }
    total = {str(status): sum(per_class[str(status)] for per_class in counts.values()) for status in OrganStatus}
    return {**counts, "total": total}


def _conventions(settings: Settings, classes: Sequence[str], asd: str) -> dict[str, object]:
    policy = POLICIES[settings.policy]
    nsd = any(metric.column == "NSD" for metric in settings.metrics)
    one_for_all = len(settings.tolerances_mm) == 1
    tolerances = settings.tolerances_mm * (len(classes) - 1) if one_for_all else settings.tolerances_mm
    return {
        "empty_policy": policy.name,
        "empty_policy_meaning": policy.meaning,
        "asd": asd if settings.protocol == "default" else "dhc",
        "protocol": settings.protocol,
        "unit": "mm, voxel size from the truth's header"
        if settings.protocol == "default"
        else "voxels of a 72x144x144 grid",
        "surface": "voxels of the mask with a face neighbour outside; beyond the image's border is outside",
        "nsd_tolerance_mm": dict(zip(classes[1:], tolerances, strict=True)) if nsd else None,
        "overlap_range": "0 to 1",
    }


def run_evaluate(config: EvaluateSettings) -> Path:
    """Score every prediction against its truth, at the truth's resolution.

    Writes the table (``Filename, Dice_Class1, ..., ASD_Class1, ...``; a workbook if the name ends with .xlsx),
    ``<stem>_organs.csv`` (per case and organ: detected, misplaced, missed, false or absent, and both volumes in ml)
    and, last, ``<stem>.json`` with every convention. Scored cases are kept in a hidden folder beside the table until it
    is written: a run that was stopped goes on where it was. A run whose files and settings are unchanged does nothing.
    Each of ``config.workers`` needs about 0.4 GB for a 512x512x130 scan, up to 0.8 GB where the maps are stored as
    floats or a class fills the volume.

    Returns:
        The table's path; ``result.csv`` in the prediction folder by default.

    Raises:
        InputError: lists all missing and extra files, differing grids, unknown labels and unreadable files.
    """
    target = config.output_csv or _default_output(config.pred_path)
    if target.suffix.lower() not in (".csv", ".xlsx"):
        raise InputError(f"{target}: the result's name must end with .csv or .xlsx")
    naming = find_naming(config.pred_path, config.gt_path, config.dataset, config.num_classes)
    settings = _settings(naming, config)
    pairs, problems = find_pairs(
        config.pred_path,
        config.gt_path,
        image_suffix=naming.image_suffix,
        cases=chosen_cases(config.cases),
        allow_missing=config.allow_missing,
    )
    if problems and not pairs:
        raise InputError(problems)
    unknown = unlisted(config.pred_path) if config.pred_path.is_dir() else []
    strangers = [pair.prediction.name for pair in pairs if pair.prediction and pair.prediction.name in unknown]
    if strangers:
        say(f"{config.pred_path}: its {PREDICTED} does not list {listed(strangers)}: not of the model that it names")
    keys = {pair.name: pair.key(settings) for pair in pairs}
    if not problems and _up_to_date(target, keys, settings, naming):
        say(f"{target} is up to date: same files, same settings.")
        return target
    say(f"Classes from {naming.source}.")
    if missing := [pair.name for pair in pairs if pair.prediction is None]:
        say(f"Scored as all-missed, because the prediction is missing: {', '.join(missing)}.")
    store = target.parent / f".{target.stem}_cases"
    scores, unreadable = _scored(pairs, settings, store, config.workers)
    if problems + unreadable:
        raise InputError(problems + unreadable)
    _write_results(target, config, naming, settings, scores, strangers)
    shutil.rmtree(store, ignore_errors=True)
    if _zero_everywhere(scores):
        say(_labels_seen(scores, f" (classes from {naming.source})" if naming.classes else ""))
    return target


def _scored(pairs: Sequence[Pair], settings: Settings, store: Path, workers: int) -> tuple[list[CaseScores], list[str]]:
    """Score the cases that an earlier run has not scored; keep each in ``store``. Returns scores and problems."""
    found = {pair.name: _stored(store, pair, settings) for pair in pairs}
    left = [pair for pair in pairs if found[pair.name] is None]
    if len(left) < len(pairs):
        say(f"{len(pairs) - len(left)} of {len(pairs)} cases were scored by an earlier run.")
    problems: list[str] = []
    with progress("Evaluating", len(pairs), start=len(pairs) - len(left)) as advance:

        def take(position: int, outcome: CaseScores | InputError) -> None:
            name = left[position].name
            if isinstance(outcome, InputError):
                problems.extend(outcome.problems)
            else:
                found[name] = outcome
                write_text(store / f"{name}.json", outcome.model_dump_json())
            advance(name)

        tasks = [Task(pair.name, partial(_outcome, pair, settings)) for pair in left]
        run_tasks(tasks, min(workers, len(left)), take, threads=1)
    return [case for case in found.values() if case is not None], problems


def _write_results(
    target: Path,
    config: EvaluateSettings,
    naming: Naming,
    settings: Settings,
    found: Sequence[CaseScores],
    strangers: Sequence[str],
) -> None:
    """Write the tables and, last, the description that says they are whole."""
    num_foreground = max((naming.num_classes or 2) - 1, *(case.num_foreground for case in found))
    scores = [case.extended(num_foreground, settings) for case in found]
    classes = naming.classes or numbered_classes(num_foreground + 1)
    values: dict[str, FloatArray] = {
        metric.column: np.asarray([case.values[metric.column] for case in scores], dtype=np.float64)
        for metric in settings.metrics
    }
    write_frame(_organ_frame(scores, classes), organs_path(target))
    write_frame(build_frame([case.name for case in scores], values), target)
    info = ResultInfo(
        duomod=__version__,
        libraries={
            "python": platform.python_version(),
            **{n: version(n) for n in ("numpy", "scipy", "edt", "SimpleITK")},
        },
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        predictions=str(config.pred_path),
        truth=str(config.gt_path),
        dataset=naming.dataset,
        classes=classes,
        tail_classes=naming.tail_classes,
        metrics=settings.metrics,
        conventions=_conventions(settings, classes, config.asd),
        missing_predictions=tuple(case.name for case in scores if case.missing),
        unlisted_predictions=tuple(strangers),
        organs=_organ_counts(scores, classes),
        case_keys={case.name: case.key for case in scores},
        reordered={case.name: case.reordered for case in scores if case.reordered},
        mix_ups=tuple(
            mix_ups([case.name for case in scores], [case.fits for case in scores], [c.mirror for c in scores], classes)
        ),
        table_sha256=sha256(target),
        organs_sha256=sha256(organs_path(target)),
    )
    write_info(target, info)
    for note in notes_of(info):
        say(note)


def _up_to_date(target: Path, keys: dict[str, str], settings: Settings, naming: Naming) -> bool:
    """Whether the table is there, whole, and made of these very files with these settings."""
    if not target.is_file() or not sidecar(target).is_file():
        return False
    try:
        info = read_info(target)
    except InputError:
        return False
    if info is None or info.case_keys != keys or info.table_sha256 != sha256(target):
        return False
    # What is named in another way is written in another way; without a description, classes are counted.
    classes = naming.classes or numbered_classes(len(info.classes))
    named = (info.dataset, info.classes, info.tail_classes) == (naming.dataset, classes, naming.tail_classes)
    organs = organs_path(target)
    return named and organs.is_file() and info.organs_sha256 in ("", sha256(organs))
