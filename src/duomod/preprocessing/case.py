"""One case: from raw files to arrays, and whether that is done already."""

from __future__ import annotations

import errno
import traceback
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydantic import ValidationError

from duomod.datasets.check import load_case
from duomod.datasets.grid import Geometry, Triple
from duomod.datasets.importers import RawCase
from duomod.datasets.labels import merged
from duomod.datasets.scan import to_array
from duomod.datasets.spec import DatasetSpec, Modality
from duomod.errors import InputError, in_one_line
from duomod.preprocessing.arrays import MOST_COORDS, checksum
from duomod.preprocessing.geometry import canonical, resample_image, resample_label
from duomod.preprocessing.intensity import outside_value, statistics, stored
from duomod.preprocessing.intensity_check import Finding, Intensities, findings
from duomod.preprocessing.store import BODY, STAGING, CaseRecord, case_files
from duomod.seeding import generator
from duomod.workspace import atomic_path, read_json, sha256, write_json

R = TypeVar("R")

#: Raised when the arrays change for the same input and settings, so that older ones are made again.
_VERSION = 1

#: Errors of a disk that is full or may not be written.
_NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

#: Above this a voxel belongs to the body: HU for CT, normalised intensity for MR.
_BODY_ABOVE: dict[Modality, float] = {"CT": -500.0, "MR": 0.05}


@dataclass(frozen=True)
class CaseJob:
    """All that a worker needs to know of one case. ``settings`` are those that the arrays depend on.

    With ``accept_intensities``, voxels that cannot be what they are taken for are doubtful only.
    """

    case: RawCase
    spec: DatasetSpec
    source: str
    accept_intensities: bool = False

    @property
    def role(self) -> str:
        """Folder of the result; further unlabelled scans are training cases."""
        return "Tr" if self.case.role == "Un" else self.case.role

    @property
    def settings(self) -> dict[str, Any]:
        spec = self.spec
        facts: dict[str, Any] = {
            "version": _VERSION,
            "role": self.role,
            "modality": spec.case_modality(self.case.case_id),
            "spacing": list(spec.spacing),
            "source": self.source,
        }
        if self.case.label is not None:
            facts |= {
                "num_classes": spec.num_classes,
                "label_merges": {str(k): v for k, v in spec.label_merges.items()},
            }
        return facts

    def files(self, folder: Path) -> dict[str, Path]:
        """Arrays in a folder."""
        return case_files(folder, self.case.case_id, self.role, self.case.label is not None)


@dataclass(frozen=True)
class Refused:
    """Why a case cannot be used.

    Attributes:
        problems: Sentences that name their file.
        finding: About the image's voxels.
        details: The traceback of an error that nobody foresaw.
    """

    problems: list[str]
    finding: Finding | None = None
    details: str = ""


def working_volume(image: sitk.Image, modality: Modality, spacing_mm: Triple) -> tuple[NDArray[np.generic], Geometry]:
    """Bring a raw scan to the form that is stored.

    Returns:
        Array (D, H, W), int16 HU for CT and float32 in [0, 1] for MR; and its grid: RAS, at ``spacing_mm`` (x, y, z).
    """
    outside = outside_value(image, modality)
    resampled = resample_image(canonical(image), spacing_mm, outside)
    return stored(to_array(resampled), modality), Geometry.of(resampled)


def working_labels(label: sitk.Image, spacing_mm: Triple, merges: Mapping[int, int]) -> NDArray[np.uint8]:
    """Bring a checked raw label map to the working grid, merge classes, and return (D, H, W) uint8."""
    wide = any(value > 255 for value in merges)
    label = sitk.Cast(label, sitk.sitkInt32 if wide else sitk.sitkUInt8)
    return merged(to_array(resample_label(canonical(label), spacing_mm)), merges)


def class_coords(
    image: NDArray[np.generic], label: NDArray[np.uint8] | None, modality: Modality, case_id: str
) -> dict[int, NDArray[np.int32]]:
    """Draw voxels (N, 3) in z, y, x of each class present and of the body (key -1), at most 10,000 each, in order.

    The draw depends on the case's id only. A scan without any body voxel gives voxels from everywhere.
    """
    seed = zlib.crc32(case_id.encode())
    body = np.flatnonzero(np.greater(image, _BODY_ABOVE[modality]))
    found = {BODY: body if body.size else np.arange(image.size)}
    if label is not None:
        for value in np.flatnonzero(np.bincount(label.ravel(), minlength=1)[1:]) + 1:
            found[int(value)] = np.flatnonzero(label == value)
    drawn = {}
    for key, flat in found.items():
        if flat.size > MOST_COORDS:
            rng = generator(seed, "coords", key + 1)
            flat = np.sort(rng.choice(flat, MOST_COORDS, replace=False, shuffle=False))
        drawn[key] = np.stack(np.unravel_index(flat, image.shape), axis=1).astype(np.int32)
    return drawn


def _checked(job: CaseJob) -> tuple[sitk.Image, sitk.Image | None, dict[str, str]] | Refused:
    """Image, label and what is doubtful about the image's voxels (kind -> sentence), or why they cannot be used."""
    image, label, problems = load_case(job.case, job.spec)
    if image is None:
        return Refused(problems)
    modality = job.spec.case_modality(job.case.case_id)
    found = findings(Intensities.of(sitk.GetArrayViewFromImage(image)), modality) if not problems else []
    fatal = next((finding for finding in found if finding.fatal and not job.accept_intensities), None)
    if problems or fatal is not None:
        return Refused(problems, fatal)
    return image, label, {finding.kind: finding.text for finding in found}


def check_case(job: CaseJob) -> Refused | None:
    """Why a case cannot be used; None where it can."""

    def check() -> Refused | None:
        checked = _checked(job)
        return checked if isinstance(checked, Refused) else None

    return _told(job, check)


def preprocess_case(job: CaseJob, folder: Path) -> CaseRecord | Refused:
    """Check one case and, if it is good, write its arrays below ``folder``; ``cases/<case>.json`` comes last.

    Returns:
        The record, or everything that is wrong with the case (then nothing is written).

    Raises:
        OSError: the disk is full, or ``folder`` cannot be written.
    """
    return _told(job, lambda: _preprocessed(job, folder), folder)


def _told(job: CaseJob, work: Callable[[], R], output: Path | None = None) -> R | Refused:
    """Do something with a case; whatever fails in it is told as the case's own problem, and the others go on.

    Errors of writing below ``output`` are those of all cases.
    """
    image = job.case.image
    try:
        return work()
    except InputError as error:
        return Refused([text if job.case.case_id in text else f"{image}: {text}" for text in error.problems])
    except MemoryError:
        return Refused([f"{image}: there is not enough memory for this scan; use fewer --workers, or another machine"])
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            written = output is not None and Path(str(error.filename)).is_relative_to(output)
            if written or error.errno in _NO_PLACE:
                raise
            return Refused([f"{error.filename or image}: {error.strerror}; check the file"])
        last = str(error).strip().rpartition("\n")[2]
        words = f"{type(error).__name__}: {in_one_line(last)}" if last else type(error).__name__
        return Refused([f"{image}: cannot be used ({words})"], details=f"{image}\n{traceback.format_exc()}")


def _preprocessed(job: CaseJob, folder: Path) -> CaseRecord | Refused:
    case, spec = job.case, job.spec
    checked = _checked(job)
    if isinstance(checked, Refused):
        return checked
    image, label, doubts = checked
    modality = spec.case_modality(case.case_id)
    original = Geometry.of(image)
    array, working = working_volume(image, modality, spec.spacing)
    labels: NDArray[np.uint8] | None = None
    if label is not None:
        # Equal up to rounding; made exactly equal, so that both arrays have one shape.
        labels = working_labels(original.apply_to(label), spec.spacing, spec.label_merges)
    hashes = {path: sha256(path) for path in (case.image, case.label) if path is not None}
    coords = class_coords(array, labels, modality, case.case_id)
    record = CaseRecord(
        case_id=case.case_id,
        role=job.role,
        labelled=labels is not None,
        modality=modality,
        shape=working.shape,
        original=original,
        working=working,
        voxels=None if labels is None else tuple(np.bincount(labels.ravel(), minlength=spec.num_classes).tolist()),
        intensity=statistics(array),
        image_sha256=hashes[case.image],
        label_sha256=None if case.label is None else hashes[case.label],
        source=job.source,
        doubts=doubts,
        crc32=_write_arrays(job.files(folder), array, labels, coords),
    )
    write_json(
        marker_file(folder, case.case_id),
        {"settings": job.settings, "inputs": _stamps(case), "record": record.model_dump(mode="json")},
    )
    return record


def finished_record(job: CaseJob, folder: Path) -> CaseRecord | None:
    """The record of a case that was finished with the same input and settings, in staging or for good."""
    staging = folder / STAGING
    in_staging, in_place = job.files(staging), job.files(folder)
    for base in (staging, folder):
        marker = marker_file(base, job.case.case_id)
        if not marker.is_file():
            continue
        try:
            content = read_json(marker)
            record = CaseRecord.model_validate(content["record"])
            fits = content["settings"] == job.settings and _same_inputs(job.case, content["inputs"], record)
        except (InputError, ValidationError, KeyError, TypeError):
            continue
        # A kill while finished cases are moved leaves some arrays of a staged case in their final place.
        there = all(in_place[k].is_file() or (base == staging and in_staging[k].is_file()) for k in in_place)
        if fits and there:
            return record
    return None


def _same_inputs(case: RawCase, stamps: Mapping[str, Any], record: CaseRecord) -> bool:
    """Whether the raw files are unchanged: by size and time, or else by content."""
    if _stamps(case) == stamps:
        return True
    if not case.image.is_file() or (case.label is None) != (record.label_sha256 is None):
        return False
    return sha256(case.image) == record.image_sha256 and (
        case.label is None or sha256(case.label) == record.label_sha256
    )


def _stamps(case: RawCase) -> dict[str, list[int]]:
    inputs = {"image": case.image, "label": case.label}
    stats = {kind: path.stat() for kind, path in inputs.items() if path is not None}
    return {kind: [stat.st_size, stat.st_mtime_ns] for kind, stat in stats.items()}


def marker_file(folder: Path, case_id: str) -> Path:
    """The file that marks a case as finished; it is written last."""
    return folder / "cases" / f"{case_id}.json"


def _write_arrays(
    files: Mapping[str, Path],
    image: NDArray[np.generic],
    label: NDArray[np.uint8] | None,
    coords: Mapping[int, NDArray[np.int32]],
) -> dict[str, str]:
    """Write a case's files; returns their checksums, of what lies on the disk."""
    checksums: dict[str, str] = {}
    for kind, array in (("image", image), ("label", label)):
        if array is not None:
            with atomic_path(files[kind]) as temporary:
                np.save(temporary, np.ascontiguousarray(array), allow_pickle=False)
                checksums[kind] = checksum(temporary)
    with atomic_path(files["coords"]) as temporary:
        # Half the size on disk; a scan has far fewer than 65,536 voxels along an axis.
        small = {str(key): voxels.astype(np.uint16) for key, voxels in coords.items()}
        np.savez_compressed(temporary, **small)  # type: ignore[arg-type]
        checksums["coords"] = checksum(temporary)
    return checksums
