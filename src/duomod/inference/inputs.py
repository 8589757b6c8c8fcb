"""What can be predicted: preprocessed cases, NIfTI scans, DICOM series. All are checked before anything is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from duomod.console import say
from duomod.datasets.case_names import is_nifti
from duomod.datasets.dicom.find import find_series
from duomod.datasets.dicom.pixels import read_series
from duomod.datasets.dicom.series import Series
from duomod.datasets.grid import Geometry, read_geometry
from duomod.datasets.scan import image_problems, read_image
from duomod.datasets.spec import DatasetSpec, Modality
from duomod.datasets.splits import read_list
from duomod.errors import InputError, nearest_name
from duomod.preprocessing.case import working_volume
from duomod.preprocessing.intensity import normalise
from duomod.preprocessing.store import CaseRecord, Store
from duomod.preprocessing.verify import verify

Volume = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """One scan to predict.

    Attributes:
        case_id: Names the result.
        original: Grid of the scan, on which the result will lie.
        identity: Another text for another or a changed input.
        scan: The scan's NIfTI file, whose header the result takes over; None if there is none.
        load: Returns what the network sees, (C, D, H, W) float32 in [0, 1], and its grid.
    """

    case_id: str
    original: Geometry
    identity: str
    scan: Path | None
    load: Callable[[], tuple[Volume, Geometry]]


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
        InputError: lists all problems: missing lists, cases and scans; a scan that is not the one that was
            preprocessed; a data set of another spacing than the network's.
    """
    store, role = store_of(npy_path)
    if spec is not None and not np.allclose(spec.spacing, store.spec.spacing, rtol=0, atol=1e-4):
        ours, theirs = (" x ".join(f"{s:g}" for s in each.spacing) for each in (store.spec, spec))
        raise InputError(
            f"{npy_path}: preprocessed at {ours} mm, but the model was trained at {theirs} mm; preprocess with"
            f" --spacing {','.join(f'{s:g}' for s in spec.spacing)}, or predict the scans themselves with --input"
        )
    here = [case_id for case_id, record in sorted(store.cases.items()) if role in (None, record.role)]
    wanted = here
    if split is not None:
        wanted = list(_split_list(store.folder / "splits", split))
    if only is not None:
        wanted = [case_id for case_id in wanted if case_id in set(only)] if split is not None else list(only)
    problems = [
        f"{npy_path}: there is no case '{case_id}'.{nearest_name(case_id, here)}"
        for case_id in wanted
        if case_id not in here
    ]
    if not wanted:
        problems.append(f"{npy_path}: no cases to predict")
    if original_nii_path is not None and not original_nii_path.is_dir():
        problems.append(f"{original_nii_path}: folder not found; give the raw scans, or leave --original_nii_path out")
        original_nii_path = None
    window = (spec or store.spec).window
    found = []
    for case_id in wanted:
        if case_id not in here:
            continue
        try:
            found.append(_preprocessed(store, store.cases[case_id], window, original_nii_path))
        except InputError as error:
            problems += error.problems
    try:
        verify(store, [case_id for case_id in wanted if case_id in here], ("image",))
    except InputError as error:
        problems += error.problems
    if problems:
        raise InputError(problems)
    return found


def _split_list(folder: Path, split: str) -> tuple[str, ...]:
    name = split.removesuffix(".txt")
    path = folder / f"{name}.txt"
    if not path.is_file():
        known = sorted(other.stem for other in folder.glob("*.txt"))
        raise InputError(
            f"{path}: there is no such list.{nearest_name(name, known)} Known: {', '.join(known) or 'none'}"
        )
    return read_list(path)


def _preprocessed(store: Store, record: CaseRecord, window: tuple[float, float], scans: Path | None) -> Case:
    store.image(record.case_id)  # readable, and of the right shape
    scan, original = None, record.original
    if scans is not None:
        scan = _raw_scan(scans, record)
        original = read_geometry(scan)
        differences = original.differences(record.original)
        if differences:
            raise InputError(f"{scan}: not the scan that was preprocessed: {'; '.join(differences)}; preprocess again")

    def load() -> tuple[Volume, Geometry]:
        return normalise(store.image(record.case_id), record.modality, window), record.working

    # Headers may differ by rounding, so it counts whether one is taken over.
    identity = f"{record.image_sha256} {'stored geometry' if scan is None else scan.name}"
    return Case(record.case_id, original, identity, scan, load)


def _raw_scan(folder: Path, record: CaseRecord) -> Path:
    names = (Path(record.source).name, f"{record.case_id}.nii.gz", f"{record.case_id}.nii")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder / names[0]}: file not found; it is the scan of the preprocessed case {record.case_id}")


def scan_cases(
    input_path: Path, spec: DatasetSpec, naming: DatasetSpec | None = None, modality: Modality | None = None
) -> list[Case]:
    """The scans at a path: one NIfTI file, a folder of them, or DICOM series.

    Every file is read completely and checked.

    Args:
        input_path: File or folder. Of a folder its NIfTI files, and the DICOM series in it and in all folders below.
        spec: What the network was trained with: spacing and window.
        naming: Says the image suffix and each case's modality; default: ``spec``.
        modality: The same for all scans, whatever ``naming`` and DICOM headers say.

    Raises:
        InputError: lists all problems.
    """
    naming = naming or spec
    if not input_path.exists():
        raise InputError(f"{input_path}: no such file or folder")
    if input_path.is_dir():
        files = sorted(path for path in input_path.iterdir() if is_nifti(path) and not path.is_dir())
    else:
        files = [input_path] if is_nifti(input_path) else []
    dicom = find_series(input_path)
    problems = dicom.problems
    if not (files or dicom.series or problems):
        raise InputError(f"{input_path}: holds no scan (.nii, .nii.gz or DICOM slices)")
    found = []
    for sentence in (*dicom.left_out, *(doubt for one in dicom.series for doubt in one.doubts)):
        say(sentence)
    for path in files:
        image, of_image = image_problems(path)
        problems += of_image
        if image is not None and not of_image:
            case_id = naming.case_id(path.name)
            found.append(_scan(case_id, path, Geometry.of(image), spec, modality or naming.case_modality(case_id)))
    for one in dicom.series:
        try:
            found.append(_series(one, spec, modality or one.modality or naming.case_modality(one.case_id)))
        except InputError as error:
            problems += error.problems
    ids = [case.case_id for case in found]
    twice = sorted({case_id for case_id in ids if ids.count(case_id) > 1})
    problems += [f"{input_path}: two files of the case {case_id}; keep one of them" for case_id in twice]
    if problems:
        raise InputError(problems)
    return found


def _scan(case_id: str, path: Path, geometry: Geometry, spec: DatasetSpec, modality: Modality) -> Case:
    facts = path.stat()
    identity = f"{path.name} {facts.st_size} {facts.st_mtime_ns} {modality}"
    return Case(case_id, geometry, identity, path, lambda: network_volume(read_image(path), spec, modality))


def _series(series: Series, spec: DatasetSpec, modality: Modality) -> Case:
    read_series(series)  # every slice is whole
    return Case(
        series.case_id,
        series.geometry,
        f"{series.identity} {modality}",
        None,
        lambda: network_volume(read_series(series), spec, modality),
    )
