"""What can be predicted: preprocessed cases, scans in files, DICOM series. Each is checked when it is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from duomod.console import say
from duomod.datasets.case_names import SCAN_ENDINGS, case_id, check_case_id, is_scan
from duomod.datasets.dicom.find import find_series
from duomod.datasets.dicom.pixels import read_series
from duomod.datasets.dicom.series import Series
from duomod.datasets.folder import content
from duomod.datasets.grid import Geometry, read_geometry
from duomod.datasets.scan import doubts, image_problems
from duomod.datasets.spec import DatasetSpec, Modality
from duomod.datasets.splits import read_list
from duomod.errors import InputError, nearest_name
from duomod.inference.modality import Decision, ModalityRule, modalities_of
from duomod.preprocessing.case import working_volume
from duomod.preprocessing.intensity import normalise
from duomod.preprocessing.intensity_check import Intensities
from duomod.preprocessing.store import CaseRecord, Store
from duomod.preprocessing.verify import verify

Volume = NDArray[np.float32]


@dataclass(frozen=True)
class Loaded:
    """A scan that was read and found to be sound.

    Attributes:
        volume: What the network sees, (C, D, H, W) float32 in [0, 1].
        working: The grid of that.
        original: Grid of the scan, on which the result will lie.
        decision: How its voxels were taken, and what is doubtful.
    """

    volume: Volume
    working: Geometry
    original: Geometry
    decision: Decision

    def __iter__(self) -> Iterator[Any]:
        """The volume and its grid."""
        yield self.volume
        yield self.working


@dataclass(frozen=True)
class Case:
    """One scan to predict.

    Attributes:
        case_id: Names the result.
        source: The scan's file or folder, for messages.
        identity: Another text for another or a changed input.
        scan: The scan's NIfTI file, whose header the result takes over; None if there is none.
        load: Reads and checks it; raises InputError.
        stays: Whether the scan's file is still there after the prediction.
    """

    case_id: str
    source: Path
    identity: str
    scan: Path | None
    load: Callable[[], Loaded]
    stays: bool = True

    @property
    def original(self) -> Geometry:
        """Grid of the scan, on which the result will lie; the scan is read for it."""
        return self.load().original


@dataclass(frozen=True)
class Found:
    """What there is to predict: a sequence of cases, and what is wrong with others.

    Attributes:
        cases: The scans that can be tried.
        problems: What is wrong with others: (file or folder, sentence).
    """

    cases: list[Case] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)

    def __getitem__(self, number: int) -> Case:
        return self.cases[number]


def network_volume(image: sitk.Image, spec: DatasetSpec, modality: Modality) -> tuple[Volume, Geometry]:
    """Preprocess a raw scan as ``duomod preprocess`` does, and normalise it.

    Returns:
        Array (1, D, H, W) float32 in [0, 1], and its grid: RAS, at the spacing of ``spec``.
    """
    array, working = working_volume(image, modality, spec.spacing)
    return normalise(array, modality, spec.window)[None], working


def store_of(npy_path: Path) -> tuple[Store, str | None]:
    """Open the data set that ``--npy_path`` belongs to.

    Args:
        npy_path: ``<preprocessed>/imagesVa`` (or ``imagesTr``, ``imagesTs``), or the whole preprocessed data set.

    Returns:
        The data set, and the role of the cases meant; None for all.

    Raises:
        InputError: it is neither.
    """
    if not npy_path.is_dir():
        raise InputError(f"{npy_path}: folder not found; give the images folder of a preprocessed data set")
    if (npy_path / "dataset.json").is_file():
        return Store.open(npy_path), None
    name = npy_path.resolve().name
    if name not in ("imagesTr", "imagesVa", "imagesTs"):
        raise InputError(
            f"{npy_path}: not an images folder of a preprocessed data set (imagesTr, imagesVa or imagesTs);"
            " to predict NIfTI scans give them as --input"
        )
    return Store.open(npy_path.resolve().parent), name.removeprefix("images")


def preprocessed_cases(
    npy_path: Path,
    spec: DatasetSpec | None,
    original_nii_path: Path | None = None,
    split: str | None = None,
    only: Sequence[str] | None = None,
) -> list[Case]:
    """The cases of a folder of a preprocessed data set.

    Args:
        npy_path: See :func:`store_of`.
        spec: What the network was trained with; its window is applied. None: the data set's own.
        original_nii_path: Folder of the scans they came from.
        split: Only the cases of this list, e.g. ``test``.
        only: Only these case ids.

    Raises:
        InputError: lists all problems: missing lists and cases; a data set of another spacing than the network's.
    """
    store, role = store_of(npy_path)
    if spec is not None and not np.allclose(spec.spacing, store.spec.spacing, rtol=0, atol=1e-4):
        ours, theirs = (" x ".join(f"{s:g}" for s in each.spacing) for each in (store.spec, spec))
        raise InputError(
            f"{npy_path}: preprocessed at {ours} mm, but the model was trained at {theirs} mm; preprocess with"
            f" --spacing {','.join(f'{s:g}' for s in spec.spacing)}, or predict the scans themselves with --input"
        )
    here = [case for case, record in sorted(store.cases.items()) if role in (None, record.role)]
    wanted = here
    if split is not None:
        wanted = list(_split_list(store.folder / "splits", split))
    if only is not None:
        chosen = set(only)
        wanted = [case for case in wanted if case in chosen] if split is not None else list(dict.fromkeys(only))
    known = set(here)
    problems = [
        f"{npy_path}: there is no case '{case}'.{nearest_name(case, here)}" for case in wanted if case not in known
    ]
    if not wanted:
        problems.append(f"{npy_path}: no cases to predict")
    if original_nii_path is not None and not original_nii_path.is_dir():
        problems.append(f"{original_nii_path}: folder not found; give the raw scans, or leave --original_nii_path out")
        original_nii_path = None
    if problems:
        raise InputError(problems)
    window = (spec or store.spec).window
    scans = content(original_nii_path, store.spec.image_suffix).files if original_nii_path is not None else {}
    cases = [_preprocessed(store, store.cases[case], window, original_nii_path, scans) for case in wanted]
    try:
        verify(store, wanted, ("image",))
    except InputError:  # one that is damaged stops no other: each is asked again when it is loaded
        return [replace(case, load=partial(_verified, store, case)) for case in cases]
    return cases


def _verified(store: Store, case: Case) -> Loaded:
    verify(store, [case.case_id], ("image",))
    return case.load()


def _split_list(folder: Path, split: str) -> tuple[str, ...]:
    name = split.removesuffix(".txt")
    path = folder / f"{name}.txt"
    if not path.is_file():
        known = sorted(other.stem for other in folder.glob("*.txt"))
        raise InputError(
            f"{path}: there is no such list.{nearest_name(name, known)} Known: {', '.join(known) or 'none'}"
        )
    return read_list(path)


def _preprocessed(
    store: Store, record: CaseRecord, window: tuple[float, float], folder: Path | None, scans: Mapping[str, Path]
) -> Case:
    array = store.folder / f"images{record.role}" / f"{record.case_id}.npy"
    scan = _raw_scan(folder, record, scans) if folder is not None else None

    def load() -> Loaded:
        image = store.image(record.case_id)
        original = record.original
        if scan is not None:
            original = read_geometry(scan)
            differences = original.differences(record.original)
            if differences:
                raise InputError(
                    f"{scan}: not the scan that was preprocessed: {'; '.join(differences)}; preprocess again"
                )
        how = Decision(
            record.modality, "as it was preprocessed", tuple(f"{array}: {d}" for d in record.doubts.values())
        )
        return Loaded(normalise(image, record.modality, window), record.working, original, how)

    # Headers may differ by rounding, so it counts whether one is taken over.
    identity = f"{record.image_sha256} {'stored geometry' if scan is None else scan.name}"
    return Case(record.case_id, array, identity, scan, load)


def _raw_scan(folder: Path, record: CaseRecord, scans: Mapping[str, Path]) -> Path:
    """The raw scan of a preprocessed case: of the same name, or else of the same id. It may not be there."""
    same = folder / Path(record.source).name
    return same if same.is_file() else scans.get(record.case_id, same)


def scan_cases(
    input_path: Path,
    spec: DatasetSpec,
    rule: ModalityRule | None = None,
    naming: DatasetSpec | None = None,
    series: str | None = None,
) -> Found:
    """The scans at a path: one file, a folder of them, DICOM series. Names are looked at, and headers of DICOM.

    Args:
        input_path: File or folder. Of a folder the scans in files, and the DICOM series in it and in all folders below.
        spec: What the network was trained with: spacing and window.
        rule: Says of each scan whether it is CT or MR. Default: its DICOM header, or a modality of ``spec``.
        naming: Says the image suffix; default: ``spec``.
        series: UID, number or description of the DICOM series to take.

    Raises:
        InputError: there is no scan, or none that can be tried: then all that is wrong with them.
    """
    rule = rule or ModalityRule(None, modalities_of(spec))
    suffix = (naming or spec).image_suffix
    found = Found()
    if not input_path.exists():
        raise InputError(f"{input_path}: no such file or folder")
    if is_scan(input_path) and not input_path.is_dir():
        _add(found, case_id(input_path.name, suffix), input_path, partial(_scan, path=input_path, spec=spec, rule=rule))
        return found
    inside, dicom = content(input_path, suffix), find_series(input_path, series)
    # Of two files of one case, neither is known to be the right one.
    ids = Counter([*_ids_in(input_path, suffix), *(one.case_id for one in dicom.series)])
    files = {name: path for name, path in inside.files.items() if ids[name] == 1}
    if inside.files or inside.problems:
        slices = {path.relative_to(input_path).parts[0] for path in dicom.files}
        others = tuple(name for name in inside.unread if name.partition("/")[0] not in slices)
        say(replace(inside, files=files, unread=others).summary)
    for sentence in dicom.left_out:
        say(sentence)
    found.problems.extend((input_path, text) for text in (*inside.problems, *dicom.problems))
    for name, path in files.items():
        _add(found, name, path, partial(_scan, path=path, spec=spec, rule=rule))
    for one in dicom.series:
        if ids[one.case_id] == 1:
            _add(found, one.case_id, one.folder, partial(_series, series=one, spec=spec, rule=rule))
        else:
            found.problems.append(
                (one.folder, f"{one.folder}: the case {one.case_id} is there twice; keep one of them")
            )
    if not found.cases and found.problems:
        raise InputError([problem for _, problem in found.problems])
    if not found.cases:
        raise InputError(f"{input_path}: holds no scan ({', '.join(SCAN_ENDINGS)} or DICOM slices)")
    return found


def _ids_in(folder: Path, suffix: str) -> list[str]:
    """The id of every scan in a folder's files, also where several have the same."""
    if not folder.is_dir():
        return []
    return [case_id(path.name, suffix) for path in folder.iterdir() if is_scan(path) and not path.is_dir()]


def _add(found: Found, name: str, path: Path, make: Callable[[str], Case]) -> None:
    """Add a case, or a sentence about a name that cannot be one's id or a file that is gone."""
    try:
        found.cases.append(make(check_case_id(name)))
    except ValueError as error:
        found.problems.append((path, f"{path}: {error}; rename it"))


def _scan(name: str, path: Path, spec: DatasetSpec, rule: ModalityRule) -> Case:
    def load() -> Loaded:
        image, problems = image_problems(path)
        if image is None or problems:
            raise InputError(problems)
        return _loaded(image, str(path), name, spec, rule, None, doubts(path))

    facts = path.stat()
    identity = f"{path.name} {facts.st_size} {facts.st_mtime_ns} {_told(name, rule)}"
    return Case(name, path, identity, path, load)


def _series(name: str, series: Series, spec: DatasetSpec, rule: ModalityRule) -> Case:
    def load() -> Loaded:
        if series.modality is None and series.modality_name and rule.asked is None:
            raise InputError(
                f"{series.called}: {series.modality_name} by its DICOM header, neither CT nor MR"
                " (--modality takes it as one)"
            )
        return _loaded(read_series(series), series.called, name, spec, rule, series.modality, series.doubts)

    return Case(name, series.folder, f"{series.identity} {_told(name, rule)}", None, load)


def _told(name: str, rule: ModalityRule) -> str:
    """What the user says of a scan's modality, directly or by the data set: part of what its result is made from."""
    return f"{rule.asked} {rule.by_number(name)}"


def _loaded(
    image: sitk.Image,
    source: str,
    name: str,
    spec: DatasetSpec,
    rule: ModalityRule,
    header: Modality | None,
    doubtful: Sequence[str],
) -> Loaded:
    how = rule.decide(source, name, Intensities.of(sitk.GetArrayViewFromImage(image)), header)
    volume, working = network_volume(image, spec, how.modality)
    how = replace(how, doubts=(*doubtful, *how.doubts))
    return Loaded(volume, working, Geometry.of(image), how)
