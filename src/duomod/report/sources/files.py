"""Where the scans, truths and predictions behind a report are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from duomod.datasets.case_names import case_id
from duomod.datasets.spec import DatasetSpec, Modality
from duomod.errors import InputError
from duomod.report.sources.collect import Collection, Method, Seed
from duomod.report.sources.scans import CaseSource, Overlay
from duomod.settings import checked


@dataclass(frozen=True)
class CaseFiles:
    """Files of one case.

    Attributes:
        case: File name in the result tables.
        scan: The scan, or None if it is not to be found.
        truth: Its true label map, or None.
        predictions: (method, seed) -> label map.
        modality: For the grey window.
        label_merges: Raw label value -> class index, applied when the truth is read.
    """

    case: str
    scan: Path | None
    truth: Path | None
    predictions: dict[tuple[str, str], Path]
    modality: Modality
    label_merges: Mapping[int, int]

    @property
    def name(self) -> str:
        """The case's id: its file name without endings."""
        return case_id(self.case)

    def source(self, predictions: Sequence[Overlay], classes: Sequence[str]) -> CaseSource | None:
        """Return what shows the case with these predictions; None if its scan is not to be found."""
        if self.scan is None:
            return None
        return CaseSource(self.name, self.scan, self.truth, predictions, classes, self.modality, self.label_merges)


def locate(collection: Collection, images: Path | None, truth: Path | None) -> tuple[list[CaseFiles], list[str]]:
    """Find the files of all cases.

    Args:
        collection: The runs; their predictions know which scans they were made from.
        images: Folder of scans, instead.
        truth: Folder of true label maps; default: the one that the evaluation recorded.

    Returns:
        One entry per case, and sentences about what was not found.

    Raises:
        InputError: a folder that was given is missing or lacks some case.
    """
    problems = [f"{folder}: no such folder" for folder in (images, truth) if folder is not None and not folder.is_dir()]
    if problems:
        raise InputError(problems)
    seeds = [(method, seed) for method in collection.methods for seed in method.seeds]
    found = [_case_files(case, seeds, images, truth) for case in collection.cases]
    for folder, what in ((images, "scan"), (truth, "truth")):
        lacking = [files.name for files in found if getattr(files, what) is None]
        if folder is not None and lacking:
            problems.append(f"{folder}: holds no {what} of {', '.join(lacking)}")
    if problems:
        raise InputError(problems)
    notes = []
    for what, flag in (("scan", "--images"), ("truth", "--truth")):
        lacking = [files.name for files in found if getattr(files, what) is None]
        if lacking:
            which = "all cases" if len(lacking) == len(found) else ", ".join(lacking)
            notes.append(f"{what} not found for {which}: no picture and no viewer there; name the folder with {flag}")
    without = [f"{method.name} {seed.name}" for method, seed in seeds if seed.predictions is None]
    if without:
        notes.append(f"predictions not found: {', '.join(without)}")
    return found, notes


def _case_files(case: str, seeds: Iterable[tuple[Method, Seed]], images: Path | None, truth: Path | None) -> CaseFiles:
    name = case_id(case)
    predictions: dict[tuple[str, str], Path] = {}
    scan = _in_folder(images, name) if images is not None else None
    true = _in_folder(truth, name) if truth is not None else None
    spec: DatasetSpec | None = None
    for method, seed in seeds:
        if seed.predictions is not None and (seed.predictions / case).is_file():
            predictions[method.name, seed.name] = seed.predictions / case
        recorded = seed.prediction.get("scans", {}).get(name)
        if scan is None and images is None and recorded and Path(recorded).exists():
            scan = Path(recorded)
        if true is None and truth is None and seed.table.info is not None:
            true = _in_folder(Path(seed.table.info.truth), name)
        spec = spec or _spec(seed)
    if spec is None:
        return CaseFiles(case, scan, true, predictions, "MR", {})
    return CaseFiles(case, scan, true, predictions, spec.case_modality(name), spec.label_merges)


def _in_folder(folder: Path, name: str) -> Path | None:
    """A case's file or DICOM folder; nnU-Net's channel suffix ``_0000`` may follow the name."""
    candidates = (f"{name}{suffix}{ending}" for suffix in ("", "_0000") for ending in (".nii.gz", ".nii", ""))
    return next((folder / candidate for candidate in candidates if (folder / candidate).exists()), None)


def _spec(seed: Seed) -> DatasetSpec | None:
    """The data set's description, as the prediction recorded it."""
    spec = seed.prediction.get("settings", {}).get("spec")
    if spec is None:
        return None
    return checked(
        DatasetSpec,
        spec,
        source=f"{seed.predictions}/prediction.json: its data set description cannot be read; predict again with this"
        " version: ",
    )
