"""Label maps on exactly the grid of the scans: the command, and the same for one image in memory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor, nn

from duomod.console import say
from duomod.datasets.grid import Geometry
from duomod.datasets.spec import DatasetSpec, Modality, load_spec
from duomod.datasets.splits import read_list
from duomod.errors import DuomodError, InputError
from duomod.inference.inputs import Case, Volume, network_volume, preprocessed_cases, scan_cases, store_of
from duomod.inference.nifti import write_labels
from duomod.inference.settings import PredictSettings, WindowSettings
from duomod.inference.sliding_window import predict_probabilities
from duomod.preprocessing.geometry import labels_on_grid
from duomod.training.load import load_predictor
from duomod.training.model_info import ModelInfo
from duomod.training.precision import choose_device, choose_dtype, lay_out
from duomod.version import __version__
from duomod.workspace import PREDICTED, atomic_path, read_json, sha256, write_json

#: In the folder of predictions: what made them. Tells which need not be made again.


@dataclass(frozen=True)
class Window:
    """How a volume is gone through; see :func:`predict_probabilities`."""

    patch: tuple[int, int, int]
    settings: WindowSettings
    device: torch.device

    @property
    def amp_dtype(self) -> torch.dtype | None:
        """Autocast type, or None for float32."""
        return choose_dtype(self.settings.precision, self.device)

    def probabilities(self, model: nn.Module, volume: Volume) -> Tensor:
        """Class probabilities (classes, D, H, W) of a volume (channels, D, H, W)."""
        return predict_probabilities(
            model,
            volume,
            self.patch,
            overlap=self.settings.overlap,
            blending=self.settings.blending,
            batch_size=self.settings.batch_size,
            amp_dtype=self.amp_dtype,
            device=self.device,
        )


def predict_image(
    model: nn.Module,
    info: ModelInfo,
    image: sitk.Image,
    settings: WindowSettings | None = None,
    *,
    modality: Modality | None = None,
    device: str = "cpu",
) -> sitk.Image:
    """Segment one scan.

    Args:
        model: From :func:`load_predictor`, on ``device``.
        info: The same function's.
        image: 3D scan of any orientation and spacing, HU for CT.
        settings: How the window goes through it.
        modality: Default: that of ``info``'s data set.
        device: Where to compute.

    Returns:
        uint8 label map with exactly the scan's size, spacing, origin and direction.

    Raises:
        InputError: the checkpoint does not say how its training data were preprocessed, or takes several channels.
    """
    if info.spec is None:
        raise InputError(
            "this checkpoint does not say what data it was trained on; load it with a data set description"
        )
    _check_channels("the scan", info, 1)
    settings = settings or WindowSettings()
    volume, working = network_volume(image, info.spec, modality or info.spec.modality)
    window = Window(settings.patch or info.patch, settings, torch.device(device))
    original = Geometry.of(image)
    labels = labels_on_grid(window.probabilities(model, volume).cpu().numpy(), working, original)
    return original.image_of(labels)


def run_predict(config: PredictSettings) -> Path:
    """Predict scans with a checkpoint and write ``<output_path>/<case>.nii.gz``, uint8, on exactly the scans' grids.

    Everything is checked before anything is written. Run again after an interruption, it goes on: results made from the
    same input with the same checkpoint and settings are kept, all others are made again.

    The checkpoint is ours or a published one. With ``npy_path``, ``original_nii_path`` is checked to be the scans that
    were preprocessed, and their headers are taken over; without it the stored geometry is used. ``dataset`` says for a
    published checkpoint what it was trained on; for others it names the scans' cases and modalities, while spacing,
    window and patch stay those of the training. ``save_probabilities`` writes float16 (C, D, H, W) and its grid.

    Returns:
        ``config.output_path``.

    Raises:
        InputError: lists everything that is wrong with arguments, checkpoint or scans.
        DuomodError: the GPU's memory is too small.
    """
    device = choose_device(config.gpu)
    model, info, found = _load(config, device)
    output_path = config.output_path
    scans = [path for path in (config.input_path, config.original_nii_path) if path is not None]
    _check_output(output_path, found, scans)
    window = Window(config.patch or info.patch, config, device)
    settings = {
        "duomod": __version__,
        "model_sha256": sha256(config.model_path),
        "method": info.method,
        "num_classes": info.num_classes,
        "spec": info.spec.model_dump(mode="json") if info.spec else None,
        "patch": list(window.patch),
        "overlap": config.overlap,
        "blending": config.blending,
        "dtype": str(window.amp_dtype or torch.float32),
        "probabilities": config.save_probabilities,
    }
    model = lay_out(model, device)
    left = _claim(output_path, found, settings, config.model_path, config.resume)
    if len(left) < len(found):
        say(f"{len(found) - len(left)} of {len(found)} cases are already predicted with this checkpoint and settings")
    for number, case in enumerate(left, start=1):
        began = time.monotonic()
        try:
            _predict_case(model, window, case, output_path, config.save_probabilities)
        except torch.OutOfMemoryError:
            raise DuomodError(
                f'{case.case_id}: the GPU\'s memory is too small; use a smaller --batch_size, or the CPU (--gpu "").'
                " What is predicted so far is kept."
            ) from None
        say(f"predicted {number}/{len(left)} {case.case_id} in {time.monotonic() - began:.1f} s")
    return output_path


def _load(config: PredictSettings, device: torch.device) -> tuple[nn.Module, ModelInfo, list[Case]]:
    """The model, what is known of it, and the cases to predict; checked to fit together."""
    path, npy_path = config.model_path, config.npy_path
    described = load_spec(config.dataset) if config.dataset else None
    for_published = described or (store_of(npy_path)[0].spec if npy_path is not None else None)
    model, info = load_predictor(path, str(device), method=config.method, spec=for_published, plugin=config.plugin)
    _check_model(path, info, config.method, config.num_classes, described)
    if npy_path is not None:
        _check_classes(path, info, store_of(npy_path)[0].spec)
        _check_channels(str(npy_path), info, store_of(npy_path)[0].channels)
        cases = read_list(config.cases) if config.cases else None
        return model, info, preprocessed_cases(npy_path, info.spec, config.original_nii_path, config.split, cases)
    assert config.input_path is not None
    if info.spec is None:
        raise InputError(f"{path}: this checkpoint does not say what data it was trained on; name it with --dataset")
    _check_channels(str(config.input_path), info, 1)
    return model, info, scan_cases(config.input_path, info.spec, described, config.modality)


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


def _check_channels(source: str, info: ModelInfo, channels: int) -> None:
    if channels != info.in_channels:
        raise InputError(
            f"{source}: images of {channels} channel{'' if channels == 1 else 's'}, but the model takes"
            f" {info.in_channels}; give preprocessed cases like those it was trained on (--npy_path)"
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
        old = read_json(output / PREDICTED)
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
    write_json(output / PREDICTED, {"model": str(model), "settings": settings, "cases": made, "scans": scans})
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
