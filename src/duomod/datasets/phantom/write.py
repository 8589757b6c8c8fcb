"""A phantom data set on disk: NIfTI in AMOS's layout.

``amos`` draws the 15 organs at their real volumes; ``tiny`` draws the same bodies coarsely and labels seven of the
organs.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from duomod.console import progress, say
from duomod.datasets.phantom.scan import PhantomCase, make_case, preset_spec, scanner_of
from duomod.datasets.phantom.settings import PhantomSettings, Preset
from duomod.datasets.spec import DatasetSpec
from duomod.errors import InputError
from duomod.locks import LOCK, locked
from duomod.workers import Task, run_tasks
from duomod.workspace import atomic_path, read_json, sweep_parts, write_json

#: Counts up whenever the drawing changes, so that a folder is never completed with cases of another world.
VERSION = 1
SETTINGS_FILE = "phantom.json"


@dataclass(frozen=True)
class _Settings:
    """What a phantom folder was asked to hold; kept in it."""

    cases: int
    unlabeled: int
    seed: int
    preset: Preset
    version: int = VERSION

    def plan(self) -> list[tuple[str, str, bool]]:
        """Return (case id, ``Tr`` or ``Va``, labelled) of every case; a case's place in the list is its index."""
        held_out = max(round(0.25 * self.cases), 2 if self.cases >= 6 else 1 if self.cases >= 2 else 0)
        roles = [("Tr", True)] * (self.cases - held_out) + [("Va", True)] * held_out + [("Tr", False)] * self.unlabeled
        prefix = scanner_of(self.preset).id_prefix
        return [(f"{prefix}_{number:04d}", *role) for number, role in enumerate(roles, start=1)]


def write_phantom(config: PhantomSettings) -> Path:
    """Write a phantom data set in AMOS's layout; run again, it completes what is missing.

    A quarter of the cases (at least two of six or more) goes to ``imagesVa``/``labelsVa``, the rest to
    ``imagesTr``/``labelsTr``. Images are int16 HU, labels uint8. The folder is new, empty, or a phantom of the same
    settings.

    Returns:
        ``config.out``.

    Raises:
        InputError: the folder holds something else, or another process is at work in it.
        OSError: the disk is full, or the folder cannot be written; no scan is there in part.
        DuomodError: a worker process died.
    """
    out = config.out
    settings = _Settings(config.cases, config.unlabeled, config.seed, config.preset)
    _check_folder(out, settings)
    with locked(out, "a phantom"):
        _complete(out, settings, config.workers)
    return out


def _complete(out: Path, settings: _Settings, workers: int) -> None:
    """Write the cases that are missing, and the description."""
    marker = out / SETTINGS_FILE
    if not marker.exists():
        write_json(marker, asdict(settings))
    plan = settings.plan()
    missing = [index for index, (case_id, role, _) in enumerate(plan) if not _image_path(out, role, case_id).exists()]
    if len(missing) < len(plan):
        say(f"phantom: {len(plan) - len(missing)} of {len(plan)} cases are already in {out}")
    with progress("phantom", total=len(plan), start=len(plan) - len(missing)) as advance:
        tasks = [Task(plan[index][0], partial(_write_case, out, settings, index)) for index in missing]
        run_tasks(tasks, min(workers, len(missing)), lambda position, _: advance(tasks[position].name))
    write_json(out / "dataset.json", _dataset_json(settings, preset_spec(settings.preset)))


def _check_folder(out: Path, settings: _Settings) -> None:
    """Refuse a folder that holds something else than this phantom."""
    marker = out / SETTINGS_FILE
    if marker.exists():
        found, wanted = read_json(marker), asdict(settings)
        if found != wanted:
            found = found if isinstance(found, dict) else {}
            differing = [
                f"{name} {found.get(name)} (asked for: {wanted[name]})"
                for name in wanted
                if found.get(name) != wanted[name]
            ]
            raise InputError(
                f"{out}: holds a phantom of other settings: {', '.join(differing)}. Choose a new folder or delete it."
            )
        return
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give a folder for the phantom")
    sweep_parts(out)
    if out.exists() and any(path.name != LOCK for path in out.iterdir()):
        raise InputError(f"{out}: the folder is not empty and holds no phantom; give a new or an empty folder")


def _image_path(out: Path, role: str, case_id: str) -> Path:
    return out / f"images{role}" / f"{case_id}.nii.gz"


def _write_case(out: Path, settings: _Settings, index: int) -> None:
    case_id, role, labelled = settings.plan()[index]
    case = make_case(settings.seed, index, settings.preset)
    # The image comes last and marks the case as done: a label without an image is noticed, an image without a label
    # would pass for an unlabelled case.
    if labelled:
        _write_nifti(out / f"labels{role}" / f"{case_id}.nii.gz", case.labels, case)
    _write_nifti(_image_path(out, role, case_id), np.rint(case.image).astype(np.int16), case)


def _write_nifti(target: Path, voxels: NDArray[Any], case: PhantomCase) -> None:
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(case.spacing)
    image.SetOrigin(case.origin)
    image.SetDirection(case.direction)
    with atomic_path(target) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True)
        if not _is_whole(temporary, voxels):
            raise OSError("ITK wrote a part of the file and did not say why")


def _is_whole(path: Path, voxels: NDArray[Any]) -> bool:
    """Whether a file holds these voxels: ITK does not notice when a disk is full."""
    try:
        return gzip.decompress(path.read_bytes()).endswith(voxels.tobytes())
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return False


def _dataset_json(settings: _Settings, spec: DatasetSpec) -> dict[str, Any]:
    """The description in AMOS's style: labels by number, cases listed with relative paths."""
    plan = settings.plan()

    def listed(role: str) -> list[dict[str, str]]:
        return [
            {"image": f"./images{role}/{case_id}.nii.gz", "label": f"./labels{role}/{case_id}.nii.gz"}
            for case_id, its_role, labelled in plan
            if its_role == role and labelled
        ]

    training, validation = listed("Tr"), listed("Va")
    return {
        "name": f"duomod phantom ({settings.preset})",
        "description": f"Synthetic abdominal CT, seed {settings.seed}; made by duomod phantom, no patient data",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {str(index): name for index, name in enumerate(spec.classes)},
        "numTraining": len(training),
        "numValidation": len(validation),
        "numTest": 0,
        "training": training,
        "validation": validation,
        "test": [],
        "unlabeled": [f"./imagesTr/{case_id}.nii.gz" for case_id, _, labelled in plan if not labelled],
    }
