"""From raw scans to a store. One process per case; can be killed at any moment and run again.

A case is read once: checked, and written if it is good. Finished cases wait in a hidden folder of the output until all
cases are known to be good, so that bad input leaves nothing behind and replaces no earlier result.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from duomod.console import progress, say
from duomod.datasets.importers import RawCase, list_cases
from duomod.datasets.index import FORMAT, read_index
from duomod.datasets.recognise import resolve_spec
from duomod.datasets.scan import say_doubts
from duomod.datasets.spec import DatasetSpec
from duomod.datasets.splits import copy_lists, kept_list_problems, make_splits, part_sizes, raw_list_problems
from duomod.errors import DuomodError, InputError
from duomod.failure import write_log
from duomod.locks import locked
from duomod.preprocessing.case import CaseJob, Refused, check_case, finished_record, marker_file, preprocess_case
from duomod.preprocessing.intensity_check import Finding, of_set
from duomod.preprocessing.settings import PreprocessSettings
from duomod.preprocessing.store import STAGING, CaseRecord, Store, case_files
from duomod.workers import Task, run_tasks
from duomod.workspace import sweep_parts, write_json, write_manifest


def run_preprocess(config: PreprocessSettings) -> Path:
    """Check a raw data set, bring every scan to one orientation and spacing, and make the splits.

    Cases that are done already, with the same input and settings, are not done again.

    Returns:
        ``config.output_path``.

    Raises:
        InputError: lists all problems of the raw data set; the output folder is then as it was before. Or another
            process is at work in it.
        OSError: the disk is full, or the output folder cannot be written.
        DuomodError: a worker process died.
    """
    spec = resolve_spec(config.data_path, config.dataset, config.num_classes)
    if config.spacing is not None:
        spec = spec.model_copy(update={"spacing": config.spacing})
    output_path = config.output_path
    _check_output(config.data_path, output_path, spec)
    created = [folder for folder in (output_path, *output_path.parents) if not folder.exists()]
    try:
        with locked(output_path, "a preprocess"):
            _preprocess(config, spec)
    finally:
        for folder in created:
            with contextlib.suppress(OSError):  # not empty: the result is in it
                folder.rmdir()
    return output_path


def _preprocess(config: PreprocessSettings, spec: DatasetSpec) -> None:
    data_path, output_path = config.data_path, config.output_path
    cases, problems = list_cases(data_path, spec)
    problems += raw_list_problems(data_path / "splits", [case.case_id for case in cases])
    problems += kept_list_problems(output_path)
    jobs = [
        CaseJob(case, spec, case.image.relative_to(data_path).as_posix(), config.accept_intensities) for case in cases
    ]
    _say_counts(cases, spec)
    say_doubts(path for case in cases for path in (case.image, case.label) if path is not None)
    staging = output_path / STAGING
    sweep_parts(output_path, output_path / "splits", *staging.glob("*"))
    done = {job.case.case_id: record for job in jobs if (record := finished_record(job, output_path)) is not None}
    todo = [job for job in jobs if job.case.case_id not in done]
    if done:
        say(f"{len(done)} of {len(jobs)} cases are done already")
    if not problems:
        staging.mkdir(parents=True, exist_ok=True)  # an output that cannot be written is found out now, not in an hour
    fresh, found = _run(todo, staging, config.workers, check_only=bool(problems))
    problems += found
    if problems:
        _undo([job for job in todo if job.case.case_id in fresh], staging)
        raise InputError(problems)
    records = done | fresh
    ordered = {job.case.case_id: records[job.case.case_id] for job in jobs}
    _commit(jobs, output_path, staging, ordered)
    store = Store(output_path, spec, ordered)
    copy_lists(data_path / "splits", store)
    make_splits(store, config.seed)
    facts = {"data": str(data_path), "cases": len(ordered), "spacing": spec.spacing, "seed": config.seed}
    write_manifest(output_path, "preprocess", **facts)
    write_json(
        output_path / "dataset.json",
        {
            "format": FORMAT,
            "spec": spec.model_dump(mode="json"),
            "cases": [record.model_dump(mode="json") for record in ordered.values()],
        },
    )
    _say_doubts(store)
    _say_result(store)


def _check_output(data_path: Path, output_path: Path, spec: DatasetSpec) -> None:
    if output_path.exists() and not output_path.is_dir():
        raise InputError(f"{output_path}: is a file; give a folder for the result")
    raw, result = Path(os.path.realpath(data_path)), Path(os.path.realpath(output_path))
    if raw == result or (output_path.exists() and output_path.samefile(data_path)):
        raise InputError(f"{output_path}: the raw data set itself; give another folder for the result")
    if raw in result.parents:
        raise InputError(f"{output_path}: lies in the raw data set {data_path}; give a folder outside of it")
    path = output_path / "dataset.json"
    if path.is_file():
        index = read_index(path)
        if not index.preprocessed:
            raise InputError(f"{output_path}: holds a raw data set; give another folder for the result")
        if index.name != spec.name:
            raise InputError(
                f"{output_path}: holds the data set '{index.name}', not '{spec.name}'; give another folder"
            )


def _run(
    jobs: Sequence[CaseJob], staging: Path, workers: int, check_only: bool
) -> tuple[dict[str, CaseRecord], list[str]]:
    """Do all cases, the largest first; from the first bad one on the others are only checked.

    Returns:
        Records by case id, and all problems in the order of the cases.
    """
    records: dict[str, CaseRecord] = {}
    refused: dict[str, Refused] = {}
    largest_first = sorted(jobs, key=lambda job: -_size(job.case))
    with progress("preprocess", len(jobs)) as advance:

        def tasks() -> Iterator[Task[CaseRecord | Refused | None]]:
            for job in largest_first:
                if check_only or refused:
                    yield Task(job.case.case_id, partial(check_case, job))
                else:
                    yield Task(job.case.case_id, partial(preprocess_case, job, staging))

        def take(position: int, result: CaseRecord | Refused | None) -> None:
            case_id = largest_first[position].case.case_id
            if isinstance(result, CaseRecord):
                records[case_id] = result
            elif result is not None:
                refused[case_id] = result
            advance(case_id)

        run_tasks(tasks(), min(workers, len(jobs)), take, threads=1)
    in_order = [(job.case, refused[job.case.case_id]) for job in jobs if job.case.case_id in refused]
    problems = [text for _, one in in_order for text in one.problems]
    of_voxels = [(str(case.image), one.finding) for case, one in in_order if one.finding is not None]
    problems += of_set(of_voxels, len(jobs))
    details = [one.details for _, one in in_order if one.details]
    if details and (log := write_log(DuomodError("\n".join(details)))) is not None:
        problems.append(f"{log}: holds the details of what nobody foresaw")
    return records, problems


def _size(case: RawCase) -> int:
    try:
        return case.image.stat().st_size
    except OSError:
        return 0


def _undo(jobs: Sequence[CaseJob], staging: Path) -> None:
    """Remove the results of this run. What an earlier, killed run had finished stays."""
    for job in jobs:
        for path in (marker_file(staging, job.case.case_id), *job.files(staging).values()):
            path.unlink(missing_ok=True)
    inner = sorted((path for path in staging.rglob("*") if path.is_dir()), reverse=True)
    for folder in (*inner, staging):
        with contextlib.suppress(OSError):  # not empty: something else is in it
            folder.rmdir()


def _commit(jobs: Sequence[CaseJob], folder: Path, staging: Path, records: Mapping[str, CaseRecord]) -> None:
    """Move finished cases to their place and remove cases that the raw data set no longer has.

    A case's marker is removed first and comes back last. Each step can be repeated, so a kill does no harm; the index
    goes first, so that nobody takes what is half done for a data set.
    """
    folder.mkdir(parents=True, exist_ok=True)
    staged = [job for job in jobs if marker_file(staging, job.case.case_id).is_file()]
    gone = sorted(path for path in (folder / "cases").glob("*.json") if path.stem not in records)
    (folder / "dataset.json").unlink(missing_ok=True)
    for job in staged:
        marker = marker_file(folder, job.case.case_id)
        _remove_case(folder, marker, but=set(job.files(folder).values()))
        source, target = job.files(staging), job.files(folder)
        for kind in target:
            _move(source[kind], target[kind])
        _move(marker_file(staging, job.case.case_id), marker)
    for marker in gone:
        _remove_case(folder, marker, but=set())
    if gone:
        say(f"removed, because the raw data set no longer has them: {', '.join(path.stem for path in gone)}")
    shutil.rmtree(staging, ignore_errors=True)


def _remove_case(folder: Path, marker: Path, but: set[Path]) -> None:
    """Remove a case's marker and arrays, except those about to be replaced."""
    case_id = marker.name.removesuffix(".json")
    marker.unlink(missing_ok=True)
    for role in ("Tr", "Va", "Ts"):
        for path in case_files(folder, case_id, role, True).values():
            if path not in but:
                path.unlink(missing_ok=True)


def _move(source: Path, target: Path) -> None:
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)


def _say_counts(cases: Sequence[RawCase], spec: DatasetSpec) -> None:
    training = [case for case in cases if case.role in ("Tr", "Un")]
    labelled = sum(case.label is not None for case in training)
    text = f"{spec.name}: {labelled} labelled and {len(training) - labelled} unlabelled training cases"
    for role, title in (("Va", "validation-folder"), ("Ts", "test-folder")):
        of_role = [case for case in cases if case.role == role]
        if of_role:
            text += f", {len(of_role)} {title} cases ({sum(case.label is not None for case in of_role)} labelled)"
    modalities = [spec.case_modality(case.case_id) for case in cases]
    counts = " and ".join(f"{modalities.count(m)} {m}" for m in ("CT", "MR") if m in modalities)
    say(f"{text}; {counts}; voxels of {' x '.join(f'{mm:g}' for mm in spec.spacing)} mm")


def _say_doubts(store: Store) -> None:
    doubts = [
        (record.source, Finding(kind, text, fatal=False))
        for record in store.cases.values()
        for kind, text in record.doubts.items()
    ]
    for line in of_set(doubts, len(store.cases)):
        say(f"doubtful: {line}")


def _say_result(store: Store) -> None:
    training = [record for record in store.cases.values() if record.role == "Tr"]
    labelled = [record.case_id for record in training if record.labelled]
    if not labelled:
        say("no training case has a label: the data can be predicted, but nothing can be trained on it")
    else:
        counts = store.class_counts(labelled)
        absent = [name for name, count in zip(store.spec.classes, counts, strict=True) if count == 0]
        if absent:
            say(f"no training case has {', '.join(absent)}: a model cannot learn what is never labelled")
    patch = store.spec.patch
    small = [r for r in store.cases.values() if any(s < p for s, p in zip(r.shape, patch, strict=True))]
    if small:
        size = " x ".join(map(str, patch))
        say(f"{len(small)} of {len(store.cases)} scans are smaller than the patch ({size} voxels, z y x): padded")
    sizes = part_sizes(store)
    say(f"splits: {sizes['train']} training, {sizes['eval']} evaluation and {sizes['test']} test cases")
