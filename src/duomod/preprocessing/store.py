"""A preprocessed data set on disk: memory-mapped arrays, facts about each case, and where voxels of each class lie."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from duomod.datasets.case_names import CaseId, shown
from duomod.datasets.grid import Geometry
from duomod.datasets.index import FORMAT, preprocessed_format
from duomod.datasets.spec import DatasetSpec, Modality, parse_spec
from duomod.errors import InputError
from duomod.preprocessing.intensity import normalise
from duomod.settings import checked
from duomod.workspace import read_json

#: Sub-folder that holds finished cases until all of them are known to be good.
STAGING = ".unfinished"

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
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case_id: CaseId
    role: Literal["Tr", "Va", "Ts"]
    labelled: bool
    modality: Modality
    shape: tuple[int, int, int]
    original: Geometry
    working: Geometry
    voxels: tuple[int, ...] | None
    intensity: dict[str, float]
    image_sha256: str
    label_sha256: str | None
    source: str
    doubts: dict[str, str] = {}


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
        spec = parse_spec(data.get("spec") or {}, str(index))
        return cls(folder, spec, _records(data.get("cases") or [], index), channels)

    def image(self, case_id: str) -> NDArray[np.generic]:
        """Memory map of an image, (C, D, H, W): int16 HU for CT, float32 in [0, 1] for MR.

        The file holds (C, D, H, W), or (D, H, W) where there is one channel.

        Raises:
            InputError: no such case, or its file is missing, damaged or of another shape.
        """
        array: NDArray[np.generic] = self._mapped(case_id, "image")
        wanted = (self.channels, *self.cases[case_id].shape)
        if self.channels == 1 and array.shape == wanted[1:]:
            return array[None]
        if array.shape != wanted:
            raise InputError(
                f"{self.folder}: {case_id}: array of shape {array.shape}, expected {wanted};"
                " run duomod preprocess again"
            )
        return array

    def label(self, case_id: str) -> NDArray[np.uint8]:
        """Memory map of a label map, (D, H, W) uint8.

        Raises:
            InputError: no such case, it has no label, or its file is missing or damaged.
        """
        if not self._record(case_id).labelled:
            raise InputError(f"{self.folder}: case {case_id} has no label")
        label: NDArray[np.uint8] = self._mapped(case_id, "label")
        return label

    def normalised(self, case_id: str) -> NDArray[np.float32]:
        """A whole image as a network sees it, (C, D, H, W) float32 in [0, 1]."""
        return normalise(self.image(case_id), self.cases[case_id].modality, self.spec.window)

    def coords(self, case_id: str) -> dict[int, NDArray[np.int32]]:
        """Voxels (N, 3) in z, y, x, at most 10,000 each: of every foreground class present, and of the body (key -1).

        An unlabelled case has the body only.
        """
        path = case_files(self.folder, case_id, self._record(case_id).role, False)["coords"]
        with _explained(path), np.load(path, allow_pickle=False) as stored:
            return {int(key): stored[key].astype(np.int32) for key in stored.files}

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

    def _mapped(self, case_id: str, kind: str) -> NDArray[Any]:
        record = self._record(case_id)
        path = case_files(self.folder, case_id, record.role, record.labelled)[kind]
        with _explained(path):
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return array


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn the ways in which reading an array file fails into a sentence."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: file not found; run duomod preprocess again") from None
    except (ValueError, EOFError, BadZipFile, zlib.error):
        raise InputError(f"{path}: damaged; delete it and run duomod preprocess again") from None


def _records(rows: Any, index: Path) -> dict[str, CaseRecord]:
    source = f"{index}: damaged list of cases; preprocess again: "
    if not isinstance(rows, list):
        raise InputError(f"{source}it is not a list")
    records = [checked(CaseRecord, row, source=source) for row in rows]
    return {record.case_id: record for record in records}
