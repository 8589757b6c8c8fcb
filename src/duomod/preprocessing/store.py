"""A preprocessed data set on disk: memory-mapped arrays, facts about each case, and where voxels of each class lie."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, model_validator

from duomod.datasets.case_names import CaseId, shown
from duomod.datasets.grid import Geometry
from duomod.datasets.index import FORMAT, preprocessed_format
from duomod.datasets.spec import DatasetSpec, Modality, parse_spec
from duomod.errors import InputError
from duomod.preprocessing.arrays import coordinates, mapped
from duomod.preprocessing.intensity import normalise
from duomod.settings import checked
from duomod.workspace import read_json

#: Sub-folder that holds finished cases until all of them are known to be good.
STAGING = ".unfinished"

#: Type of the stored intensities.
_DTYPES: dict[Modality, str] = {"CT": "int16", "MR": "float32"}

#: Voxels along an axis; coordinates are stored in 16 bits.
Length = Annotated[int, Field(ge=1, le=65_535)]

#: At most so many damaged records are told.
_MOST_PROBLEMS = 10

#: Key of the body's voxels among the coordinates; the other keys are class indices.
BODY = -1


class CaseRecord(BaseModel):
    """What is known of one preprocessed case.

    Attributes:
        case_id: The raw image file's name without suffix.
        role: Folder the case lies in. Cases of ``imagesUn`` are training cases (``Tr``) without label.
        labelled: Whether there is a label map.
        modality: How the array's intensities are to be read.
        shape: Array shape (D, H, W), voxels.
        original: Grid of the raw scan, as its file has it.
        working: Grid of the array: RAS, at the data set's spacing.
        voxels: Voxels per class on the working grid; None without label.
        intensity: Statistics of the stored array (HU for CT).
        image_sha256: Hash of the raw image file.
        label_sha256: Hash of the raw label file; None without label.
        source: Raw image file, relative to the raw data set.
        doubts: What is doubtful about the raw voxels: kind of doubt -> sentence.
        crc32: Checksums of the files: ``image``, ``coords``, ``label`` -> eight hexadecimal digits. Earlier versions
            wrote none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    case_id: CaseId
    role: Literal["Tr", "Va", "Ts"]
    labelled: bool
    modality: Modality
    shape: tuple[Length, Length, Length]
    original: Geometry
    working: Geometry
    voxels: tuple[NonNegativeInt, ...] | None
    intensity: dict[str, float]
    image_sha256: str
    label_sha256: str | None
    source: str
    doubts: dict[str, str] = {}
    crc32: dict[str, str] = {}

    @model_validator(mode="after")
    def _is_one_case(self) -> Self:
        for name in ("original", "working"):
            problem = _unsound(getattr(self, name))
            if problem:
                raise ValueError(f"{self.case_id}: {name}: {problem}")
        if self.working.shape != self.shape:
            raise ValueError(f"{self.case_id}: shape {self.shape} on a grid of shape {self.working.shape}")
        if self.labelled != (self.voxels is not None):
            raise ValueError(f"{self.case_id}: voxels must be counted where there is a label, and only there")
        if self.voxels is not None and sum(self.voxels) != math.prod(self.shape):
            raise ValueError(f"{self.case_id}: {sum(self.voxels)} voxels counted in an array of shape {self.shape}")
        source = PurePosixPath(self.source)
        if source.is_absolute() or ".." in source.parts or "\0" in self.source:
            raise ValueError(f"{self.case_id}: source {self.source!r} must be a path in the raw data set")
        return self


def _unsound(grid: Geometry) -> str | None:
    """Why a grid lies nowhere; None for a sound one."""
    numbers = (*grid.spacing, *grid.origin, *grid.direction)
    if not all(math.isfinite(number) for number in numbers):
        return "its numbers must be finite"
    if min(grid.size) < 1 or min(grid.spacing) <= 0:
        return f"size {grid.size} and spacing {grid.spacing} must be positive"
    if abs(np.linalg.det(np.asarray(grid.direction).reshape(3, 3))) < 1e-6:
        return "its direction is no orientation"
    return None


def case_files(folder: Path, case_id: str, role: str, labelled: bool) -> dict[str, Path]:
    """Where a case's arrays lie: ``image``, ``coords`` and, of a labelled case, ``label``."""
    files = {
        "image": folder / f"images{role}" / f"{case_id}.npy",
        "coords": folder / "coords" / f"{case_id}.npz",
    }
    if labelled:
        files["label"] = folder / f"labels{role}" / f"{case_id}.npy"
    return files


@dataclass(frozen=True)
class Store:
    """A preprocessed data set. It holds no open file, so it can be sent to other processes.

    Attributes:
        folder: Where it lies.
        spec: The description it was made with.
        cases: All cases by id.
        channels: Channels of every image. ``dataset.json`` says it as ``channels``; where it does not, it is one.
    """

    folder: Path
    spec: DatasetSpec
    cases: Mapping[str, CaseRecord]
    channels: int = 1

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a finished preprocessed data set.

        Raises:
            InputError: there is no such folder, it is a raw data set, preprocessing has not finished, or its
                dataset.json is damaged.
        """
        index = folder / "dataset.json"
        if not folder.is_dir():
            raise InputError(f"{folder}: folder not found; give a preprocessed data set (see duomod preprocess)")
        if not index.is_file():
            if (folder / "cases").is_dir() or (folder / STAGING).is_dir():
                raise InputError(f"{folder}: preprocessing has not finished; run the same duomod preprocess again")
            raise InputError(f"{folder}: not a preprocessed data set (no dataset.json); run duomod preprocess first")
        data = read_json(index)
        written = preprocessed_format(data)
        if written is None:
            raise InputError(f"{folder}: not preprocessed (a raw data set?); run duomod preprocess first")
        if written != FORMAT:
            raise InputError(f"{index}: format {shown(written)}, expected {FORMAT}; run duomod preprocess again")
        channels = data.get("channels", 1)
        if not isinstance(channels, int) or channels < 1:
            raise InputError(f"{index}: channels {channels}: must be a whole number of at least 1; preprocess again")
        if not isinstance(data.get("spec"), dict):
            raise InputError(f"{index}: damaged: no description of the data set (spec); preprocess again")
        spec = parse_spec(data["spec"], str(index))
        return cls(folder, spec, _records(data.get("cases"), index, spec), channels)

    def files(self, case_id: str) -> dict[str, Path]:
        """Where a case's arrays lie: see :func:`case_files`.

        Raises:
            InputError: no such case.
        """
        record = self._record(case_id)
        return case_files(self.folder, case_id, record.role, record.labelled)

    def written_checksum(self, case_id: str, kind: str) -> str | None:
        """Checksum that one of a case's files was written with; None where there is none.

        Preprocessing makes one channel: images of several were put there afterwards.
        """
        return None if kind == "image" and self.channels > 1 else self._record(case_id).crc32.get(kind)

    def image(self, case_id: str) -> NDArray[np.generic]:
        """Memory map of an image, (C, D, H, W): int16 HU for CT, float32 in [0, 1] for MR.

        The file holds (C, D, H, W), or (D, H, W) where there is one channel.

        Raises:
            InputError: no such case, or its file is missing, damaged, or of another shape, type or length.
        """
        record = self._record(case_id)
        shape = (self.channels, *record.shape)
        shapes = [shape, record.shape] if self.channels == 1 else [shape]
        array: NDArray[np.generic] = mapped(self.files(case_id)["image"], shapes, _DTYPES[record.modality])
        return array if array.shape == shape else array[None]

    def label(self, case_id: str) -> NDArray[np.uint8]:
        """Memory map of a label map, (D, H, W) uint8.

        Raises:
            InputError: no such case, it has no label, or its file is missing, damaged, or of another shape, type or
                length.
        """
        record = self._record(case_id)
        if not record.labelled:
            raise InputError(f"{self.folder}: case {case_id} has no label")
        return mapped(self.files(case_id)["label"], [record.shape], "uint8")

    def normalised(self, case_id: str) -> NDArray[np.float32]:
        """A whole image as a network sees it, (C, D, H, W) float32 in [0, 1]."""
        return normalise(self.image(case_id), self.cases[case_id].modality, self.spec.window)

    def coords(self, case_id: str) -> dict[int, NDArray[np.int32]]:
        """Voxels (N, 3) in z, y, x, at most 10,000 each: of every foreground class present, and of the body (key -1).

        An unlabelled case has the body only.

        Raises:
            InputError: no such case, or its file is missing, damaged, of other classes, or not of its array.
        """
        record = self._record(case_id)
        present = [label for label, count in enumerate(record.voxels or ()) if label and count]
        return coordinates(self.files(case_id)["coords"], [BODY, *present], record.shape)

    def class_counts(self, case_ids: Iterable[str]) -> NDArray[np.int64]:
        """Voxels per class (C,), summed over the labelled ones of the given cases."""
        counts = np.zeros(self.spec.num_classes, dtype=np.int64)
        for case_id in case_ids:
            voxels = self._record(case_id).voxels
            if voxels is not None:
                counts += np.asarray(voxels, dtype=np.int64)
        return counts

    def _record(self, case_id: str) -> CaseRecord:
        try:
            return self.cases[case_id]
        except KeyError:
            raise InputError(f"{self.folder}: there is no case '{case_id}'") from None


def _records(rows: Any, index: Path, spec: DatasetSpec) -> dict[str, CaseRecord]:
    source = f"{index}: damaged list of cases; preprocess again: "
    if not isinstance(rows, list):
        raise InputError(f"{source}it is not a list")
    records: dict[str, CaseRecord] = {}
    problems: list[str] = []
    for row in rows:
        try:
            record = checked(CaseRecord, row, source=source)
        except InputError as error:
            problems += error.problems
            continue
        if record.case_id in records:
            problems.append(f"{source}{record.case_id}: is there twice")
        if record.voxels is not None and len(record.voxels) != spec.num_classes:
            problems.append(f"{source}{record.case_id}: voxels of {len(record.voxels)} classes, not {spec.num_classes}")
        records[record.case_id] = record
    if problems:
        more = len(problems) - _MOST_PROBLEMS
        raise InputError(problems[:_MOST_PROBLEMS] + ([f"{source}and {more} more"] if more > 0 else []))
    return records
