"""Where the scans, truths and predictions behind a report are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from duomod.datasets.case_names import CHANNEL, case_id, check_case_id
from duomod.datasets.folder import Content, content, listed
from duomod.datasets.spec import DatasetSpec, Modality
from duomod.errors import InputError
from duomod.inference.record import unlisted
from duomod.report.sources.collect import Collection
from duomod.report.sources.records import LeftOut, exists, is_file, is_folder
from duomod.report.sources.scans import CaseSource, Overlay
from duomod.workspace import PREDICTED


@dataclass(frozen=True)
class CaseFiles:
    """Files of one case.

    Attributes:
        case: File name in the result tables.
        scan: The scan, or None if it is not to be found.
        truth: Its true label map, or None.
        predictions: (method, seed) -> label map.
        modality: For the grey window; None where neither the prediction nor the data set's description says it.
        label_merges: Raw label value -> class index, applied when the truth is read.
    """

    case: str
    scan: Path | None
    truth: Path | None
    predictions: dict[tuple[str, str], Path]
    modality: Modality | None
    label_merges: Mapping[int, int]

    @property
    def name(self) -> str:
        """The case's id: its file name without endings."""
        return case_id(self.case)

    def left_out(self, problem: str) -> LeftOut:
        """Say that a file of the case could not be read; the sentence names the file."""
        return LeftOut(f"case {self.name}", "a scan or label map", problem)

    def source(self, predictions: Sequence[Overlay], num_classes: int) -> CaseSource | None:
        """Return what shows the case with these predictions; None if its scan is not to be found."""
        if self.scan is None:
            return None
        return CaseSource(self.scan, self.truth, predictions, num_classes, self.modality, self.label_merges)


def locate(collection: Collection, images: Path | None, truth: Path | None) -> list[CaseFiles]:
    """Find the files of all cases.

    Args:
        collection: The runs; their predictions know which scans they were made from.
        images: Folder of scans, instead.
        truth: Folder of true label maps; default: the one that the evaluation recorded.

    Returns:
        One entry per case; see :func:`lacking` for what was not found.

    Raises:
        InputError: a folder that was given is missing, lacks some case, or has two files of one.
    """
    given = [folder for folder in (images, truth) if folder is not None]
    problems = [f"{folder}: no such folder" for folder in given if not is_folder(folder)]
    if problems:
        raise InputError(problems)
    folders = _Folders()
    for folder in given:
        problems += folders.content(folder).problems
    found = [_case_files(case, collection, folders, images, truth) for case in collection.cases]
    for place, what in ((images, "scan"), (truth, "truth")):
        lacking = [files.name for files in found if getattr(files, what) is None]
        if place is not None and lacking:
            problems.append(f"{place}: holds no {what} of {listed(lacking)}")
    if problems:
        raise InputError(problems)
    return found


def remarks(collection: Collection, cases: Sequence[CaseFiles]) -> list[str]:
    """Sentences about scans, truths and predictions that were not found."""
    notes = []
    for what, flag in (("scan", "--images"), ("truth", "--truth")):
        lacking = [files.name for files in cases if getattr(files, what) is None]
        if lacking:
            which = "all cases" if len(lacking) == len(cases) else listed(lacking)
            notes.append(f"{what} not found for {which}: no picture and no viewer there; name the folder with {flag}")
    seeds = [(method, seed) for method in collection.methods for seed in method.seeds]
    without = [seed.place for _, seed in seeds if seed.beside.predictions is None]
    if without:
        notes.append(f"predictions not found: {'; '.join(without)}")
    for method, seed in seeds:
        if seed.beside.predictions is None:
            continue
        scored, key = set(seed.table.cases), (method.name, seed.name)
        if gone := [files.name for files in cases if files.case in scored and key not in files.predictions]:
            notes.append(f"{seed.place}: no label map of {listed(gone)}")
    return notes


def strangers(collection: Collection) -> list[str]:
    """Sentences about label maps that lie among the predictions of a run and are not of it, by their files' names."""
    found = []
    for method in collection.methods:
        for seed in method.seeds:
            names = unlisted(seed.beside.predictions) if seed.beside.predictions is not None else []
            if names:
                found.append(f"{seed.place}: label maps that its {PREDICTED} does not list: {listed(names)}")
    return found


class _Folders:
    """Folders of label maps and scans, each looked into once."""

    def __init__(self) -> None:
        self._found: dict[Path, Content] = {}

    def content(self, folder: Path) -> Content:
        """What a folder holds; nothing where it cannot be listed."""
        if folder not in self._found:
            try:
                self._found[folder] = content(folder) if is_folder(folder) else Content(folder, {})
            except InputError:
                self._found[folder] = Content(folder, {})
        return self._found[folder]

    def of_case(self, place: Path, name: str) -> Path | None:
        """A case's file or DICOM folder in a folder; nnU-Net's channel suffix may follow the name. A file is itself."""
        if is_file(place):
            return place
        files = self.content(place).files
        found = next((files[case] for case in (name, f"{name}{CHANNEL}") if case in files), None)
        return found or next((path for path in _folders_of(place, name) if is_folder(path)), None)


def _folders_of(place: Path, name: str) -> list[Path]:
    try:
        return [place / check_case_id(name), place / f"{name}{CHANNEL}"]
    except ValueError:  # a name that would lead elsewhere
        return []


def _case_files(
    case: str, collection: Collection, folders: _Folders, images: Path | None, truth: Path | None
) -> CaseFiles:
    name = case_id(case)
    predictions: dict[tuple[str, str], Path] = {}
    scan = folders.of_case(images, name) if images is not None else None
    true = folders.of_case(truth, name) if truth is not None else None
    modality: Modality | None = None
    spec: DatasetSpec | None = None
    for method in collection.methods:
        for seed in method.seeds:
            beside = seed.beside
            labels = folders.of_case(beside.predictions, name) if beside.predictions is not None else None
            if labels is not None and is_file(labels):
                predictions[method.name, seed.name] = labels
            recorded = beside.prediction.scans.get(name)
            if scan is None and images is None and recorded and exists(Path(recorded)):
                scan = Path(recorded)
            if true is None and truth is None and seed.table.info is not None:
                true = folders.of_case(Path(seed.table.info.truth), name)
            spec = spec or beside.prediction.settings.spec
            modality = modality or beside.prediction.modalities.get(name)
    if modality is None and spec is not None and not spec.modality_rules:
        modality = spec.modality
    return CaseFiles(case, scan, true, predictions, modality, spec.label_merges if spec is not None else {})
