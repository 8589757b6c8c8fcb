"""Label maps on exactly the grid of the scans: the command, and the same for one image in memory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor, nn

from duomod import __version__
from duomod.console import say
from duomod.datasets.grid import Geometry
from duomod.datasets.spec import DatasetSpec, Modality, load_spec
from duomod.errors import DuomodError, InputError
from duomod.inference.inputs import Case, Volume, network_volume, preprocessed_cases, scan_cases, store_of
from duomod.inference.nifti import write_labels
from duomod.inference.sliding_window import Blending, predict_probabilities
from duomod.preprocessing.geometry import labels_on_grid
from duomod.training.checkpoint import ModelInfo, load_predictor
from duomod.training.precision import choose_dtype, lay_out
from duomod.workspace import atomic_path, read_json, sha256, write_json

#: In the folder of predictions: what made them. Tells which need not be made again.
MANIFEST = "prediction.json"

_PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Window:
    """How a volume is gone through; see :func:`predict_probabilities`."""

    patch: tuple[int, int, int]
    overlap: float = 0.5
    blending: Blending = "gaussian"
    batch_size: int = 1
    amp_dtype: torch.dtype | None = None
    device: str = "cpu"

    def probabilities(self, model: nn.Module, volume: Volume) -> Tensor:
        """Class probabilities (C, D, H, W) of a volume (D, H, W)."""
        return predict_probabilities(
            model,
            volume,
            self.patch,
            overlap=self.overlap,
            blending=self.blending,
            batch_size=self.batch_size,
            amp_dtype=self.amp_dtype,
            device=self.device,
        )


def predict_image(
    model: nn.Module,
    info: ModelInfo,
    image: sitk.Image,
    *,
    modality: Modality | None = None,
    overlap: float = 0.5,
    blending: Blending = "gaussian",
    batch_size: int = 1,
    amp_dtype: torch.dtype | None = None,
    device: str = "cpu",
) -> sitk.Image:
    """Segment one scan.

    Args:
        model: From :func:`load_predictor`, on ``device``.
        info: The same function's.
        image: 3D scan of any orientation and spacing, HU for CT.
        modality: Default: that of ``info``'s data set.
        overlap: Share of a window that its neighbour covers too, in [0, 1).
        blending: ``gaussian`` (default) or ``uniform`` (the reference's).
        batch_size: Windows per forward pass.
        amp_dtype: Autocast type, or None for float32.
        device: Where to compute.

    Returns:
        uint8 label map with exactly the scan's size, spacing, origin and direction.

    Raises:
        InputError: the checkpoint does not say how its training data were preprocessed.
    """
    if info.spec is None:
        raise InputError(
            "this checkpoint does not say what data it was trained on; load it with a data set description"
        )
    volume, working = network_volume(image, info.spec, modality or info.spec.modality)
    window = Window(info.patch, overlap, blending, batch_size, amp_dtype, device)
    original = Geometry.of(image)
    labels = labels_on_grid(window.probabilities(model, volume).cpu().numpy(), working, original)
    return original.image_of(labels)


def run_predict(
    *,
    model_path: Path,
    output_path: Path,
    npy_path: Path | None = None,
    original_nii_path: Path | None = None,
    input_path: Path | None = None,
    device: str = "cpu",
    overlap: float = 0.5,
    blending: str = "gaussian",
    batch_size: int = 1,
    precision: str = "auto",
    method: str | None = None,
    dataset: str | None = None,
    num_classes: int | None = None,
    split: str | None = None,
    cases: Sequence[str] | None = None,
    patch: tuple[int, int, int] | None = None,
    modality: Modality | None = None,
    save_probabilities: bool = False,
    resume: bool = True,
) -> Path:
    """Predict scans with a checkpoint and write ``<output_path>/<case>.nii.gz``, uint8, on exactly the scans' grids.

    Everything is checked before anything is written. Run again after an interruption, it goes on: results made from the
    same input with the same checkpoint and settings are kept, all others are made again.

    Args:
        model_path: Checkpoint, ours or a published one.
        output_path: Folder of the results.
        npy_path: Preprocessed cases (``<preprocessed>/imagesVa``) instead of ``input_path``.
        original_nii_path: With ``npy_path``: the scans; checked to be those that were preprocessed, and their headers
            are taken over. Without it the stored geometry is used.
        input_path: NIfTI file, folder of NIfTI files, DICOM series, or folder of folders with one DICOM series each.
        device: ``cpu`` or ``cuda:0`` ...
        overlap: Share of a window that its neighbour covers too, in [0, 1).
        blending: ``gaussian`` or ``uniform``.
        batch_size: Windows per forward pass.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        method: Must be the checkpoint's, if given.
        dataset: Name or YAML file of a data set description. For published checkpoints: what they were trained on. For
            others it names the scans' cases and modalities; spacing, window and patch stay those of the training.
        num_classes: Must be the checkpoint's, if given.
        split: With ``npy_path``: only the cases of this list.
        cases: With ``npy_path``: only these cases.
        patch: Window in voxels (z, y, x); default: the checkpoint's.
        modality: With ``input_path``: the modality of all scans.
        save_probabilities: Also write ``probabilities/<case>.npz``: float16 (C, D, H, W) and its grid.
        resume: Keep results that are up to date.

    Returns:
        ``output_path``.

    Raises:
        InputError: lists everything that is wrong with arguments, checkpoint or scans.
        DuomodError: the GPU's memory is too small.
    """
    _check_arguments(npy_path, input_path, overlap, blending, batch_size, precision, split or cases)
    described = load_spec(dataset) if dataset else None
    for_published = described or (store_of(npy_path)[0].spec if npy_path is not None else None)
    model, info = load_predictor(model_path, device, method=method, spec=for_published)
    _check_model(model_path, info, method, num_classes, described)
    if npy_path is not None:
        _check_classes(model_path, info, store_of(npy_path)[0].spec)
        found = preprocessed_cases(npy_path, info.spec, original_nii_path, split, cases)
    else:
        assert input_path is not None
        if info.spec is None:
            raise InputError(
                f"{model_path}: this checkpoint does not say what data it was trained on; name it with --dataset"
            )
        found = scan_cases(input_path, info.spec, described, modality)
    _check_output(output_path, found, [path for path in (input_path, original_nii_path) if path is not None])

    dtype = choose_dtype(precision, torch.device(device))  # type: ignore[arg-type]
    window = Window(patch or info.patch, overlap, cast(Blending, blending), batch_size, dtype, device)
    settings = {
        "duomod": __version__,
        "model_sha256": sha256(model_path),
        "method": info.method,
        "num_classes": info.num_classes,
        "spec": info.spec.model_dump(mode="json") if info.spec else None,
        "patch": list(window.patch),
        "overlap": overlap,
        "blending": blending,
        "dtype": str(dtype or torch.float32),
        "probabilities": save_probabilities,
    }
    model = lay_out(model, torch.device(device))
    left = _claim(output_path, found, settings, model_path, resume)
    if len(left) < len(found):
        say(f"{len(found) - len(left)} of {len(found)} cases are already predicted with this checkpoint and settings")
    for number, case in enumerate(left, start=1):
        began = time.monotonic()
        try:
            _predict_case(model, window, case, output_path, save_probabilities)
        except torch.OutOfMemoryError:
            raise DuomodError(
                f'{case.case_id}: the GPU\'s memory is too small; use a smaller --batch_size, or the CPU (--gpu "").'
                " What is predicted so far is kept."
            ) from None
        say(f"predicted {number}/{len(left)} {case.case_id} in {time.monotonic() - began:.1f} s")
    return output_path


def _check_arguments(
    npy_path: Path | None,
    input_path: Path | None,
    overlap: float,
    blending: str,
    batch_size: int,
    precision: str,
    restricted: object,
) -> None:
    problems = []
    if (npy_path is None) == (input_path is None):
        problems.append("give either --input (scans) or --npy_path (preprocessed cases)")
    if input_path is not None and restricted:
        problems.append("--split: needs --npy_path; with --input, the scans given are predicted")
    if not 0 <= overlap < 1:
        problems.append(f"--overlap {overlap}: at least 0 and below 1")
    if blending not in get_args(Blending):
        problems.append(f"--blending '{blending}': {' or '.join(get_args(Blending))}")
    if batch_size < 1:
        problems.append(f"--batch_size {batch_size}: at least 1")
    if precision not in _PRECISIONS:
        problems.append(f"--precision '{precision}': {', '.join(_PRECISIONS)}")
    if problems:
        raise InputError(problems)


def _check_model(
    path: Path, info: ModelInfo, method: str | None, num_classes: int | None, described: DatasetSpec | None
) -> None:
    problems = []
    if method is not None and method != info.method:
        problems.append(f"{path}: a checkpoint of the method '{info.method}', not '{method}'; correct --exp or --model")
    if num_classes is not None and num_classes != info.num_classes:
        problems.append(f"{path}: the checkpoint has {info.num_classes} classes, but --num_classes is {num_classes}")
    if problems:
        raise InputError(problems)
    if described is not None:
        _check_classes(path, info, described)


def _check_classes(path: Path, info: ModelInfo, spec: DatasetSpec) -> None:
    if spec.num_classes != info.num_classes:
        raise InputError(
            f"{path}: the checkpoint has {info.num_classes} classes, but the data set {spec.name} has"
            f" {spec.num_classes}; give a checkpoint that was trained on it"
        )


def _check_output(output: Path, cases: Sequence[Case], inputs: Sequence[Path]) -> None:
    """Make sure that no scan is overwritten by its own prediction."""
    scans = {case.scan.resolve() for case in cases if case.scan is not None}
    hit = [case for case in cases if _target(output, case).resolve() in scans]
    if hit or any(output.resolve() == path.resolve() for path in inputs):
        raise InputError(
            f"{output}: holds the scans themselves, which results must not overwrite; choose another folder"
        )


def _target(output: Path, case: Case) -> Path:
    return output / f"{case.case_id}.nii.gz"


def _claim(output: Path, cases: Sequence[Case], settings: Mapping[str, Any], model: Path, resume: bool) -> list[Case]:
    """Write down what will make the results, after deleting those made otherwise; return the cases left to do."""
    try:
        old = read_json(output / MANIFEST)
        same = old["settings"] == settings
        made, scans = (dict(old["cases"]), dict(old["scans"])) if same else ({}, {})
    except (InputError, KeyError, TypeError, ValueError):
        made, scans = {}, {}
    left = [
        case
        for case in cases
        if not (resume and made.get(case.case_id) == case.identity and _target(output, case).is_file())
    ]
    for case in left:
        # An older result must never pass for one of this run, wherever it is interrupted.
        _target(output, case).unlink(missing_ok=True)
    made |= {case.case_id: case.identity for case in cases}
    scans |= {case.case_id: str(case.scan.resolve()) for case in cases if case.scan is not None}
    write_json(output / MANIFEST, {"model": str(model), "settings": settings, "cases": made, "scans": scans})
    return left


def _predict_case(model: nn.Module, window: Window, case: Case, output: Path, save_probabilities: bool) -> None:
    volume, working = case.load()
    probabilities = window.probabilities(model, volume).cpu().numpy()
    if save_probabilities:
        with atomic_path(output / "probabilities" / f"{case.case_id}.npz") as temporary:
            np.savez_compressed(
                temporary,
                probabilities=probabilities.astype(np.float16),
                spacing_mm=working.spacing,
                origin_mm=working.origin,
                direction=working.direction,
            )
    labels = labels_on_grid(probabilities, working, case.original)
    # Written last: its presence says that the case is done.
    write_labels(case.original.image_of(labels), _target(output, case), case.scan)
