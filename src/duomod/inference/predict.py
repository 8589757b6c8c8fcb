"""Label maps on exactly the grid of the scans: the command, and the same for one image in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor, nn

from duomod.console import say
from duomod.datasets.archive import unpacked
from duomod.datasets.grid import Geometry
from duomod.datasets.spec import DatasetSpec, Modality, load_spec
from duomod.datasets.split_lists import chosen_cases
from duomod.errors import DuomodError, InputError
from duomod.inference.failures import Failure, failure_of, lines_of
from duomod.inference.inputs import (
    Case,
    Found,
    Loaded,
    Volume,
    network_volume,
    preprocessed_cases,
    scan_cases,
    store_of,
)
from duomod.inference.modality import AmbiguousError, ModalityRule
from duomod.inference.nifti import write_labels
from duomod.inference.record import FAILED, Record, probabilities_file, target
from duomod.inference.settings import PredictSettings, WindowSettings
from duomod.inference.sliding_window import predict_probabilities
from duomod.plugins import file_sha256
from duomod.preprocessing.geometry import labels_on_grid
from duomod.preprocessing.intensity_check import Intensities
from duomod.settings import checked
from duomod.training.checkpoint import read_checkpoint
from duomod.training.load import predictor_of
from duomod.training.model_info import ModelInfo
from duomod.training.precision import choose_device, choose_dtype, lay_out
from duomod.training.published import Published
from duomod.version import __version__
from duomod.workspace import atomic_path


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
        """Class probabilities (classes, D, H, W) of a volume (channels, D, H, W).

        Raises:
            DuomodError: some are NaN.
        """
        found = predict_probabilities(
            model,
            volume,
            self.patch,
            overlap=self.settings.overlap,
            blending=self.settings.blending,
            batch_size=self.settings.batch_size,
            amp_dtype=self.amp_dtype,
            device=self.device,
        )
        # The sum is NaN or infinite where any of them is: no copy of so large an array is needed.
        if not bool(torch.isfinite(found.sum(dtype=torch.float64))):
            raise DuomodError(
                "the model's probabilities are not finite, so there is no mask;"
                " try --precision fp32, or another checkpoint"
            )
        return found


def predict_image(
    model: nn.Module,
    info: ModelInfo,
    image: sitk.Image,
    settings: WindowSettings | None = None,
    *,
    modality: Modality | None = None,
    accept_intensities: bool = False,
    device: str = "cpu",
) -> sitk.Image:
    """Segment one scan.

    Args:
        model: From :func:`load_predictor`, on ``device``.
        info: The same function's.
        image: 3D scan of any orientation and spacing, HU for CT.
        settings: How the window goes through it.
        modality: Default: the model's if it has only one, or CT where the voxels can be nothing but HU.
        accept_intensities: Take voxels that seem to be no HU (CT), or no MR.
        device: Where to compute.

    Returns:
        uint8 label map with exactly the scan's size, spacing, origin and direction.

    Raises:
        InputError: the checkpoint does not say how its training data were preprocessed, or takes several channels;
            voxels that cannot be what they are taken for; or nothing tells what they are.
        DuomodError: probabilities that are not finite.
    """
    if info.spec is None:
        raise InputError(
            "this checkpoint does not say what data it was trained on; load it with a data set description"
        )
    _check_channels("the scan", info, 1)
    settings = settings or WindowSettings()
    rule = ModalityRule.of(info, modality, accept_intensities=accept_intensities)
    try:
        how = rule.decide("the scan", "", Intensities.of(sitk.GetArrayViewFromImage(image)))
    except AmbiguousError:
        raise InputError(
            "the scan: CT or MR? The model was trained on both and the voxels do not tell; give modality='CT' or 'MR'"
        ) from None
    for doubt in how.doubts:
        say(f"doubtful: {doubt}")
    volume, working = network_volume(image, info.spec, how.modality)
    window = Window(settings.patch or info.patch, settings, torch.device(device))
    original = Geometry.of(image)
    labels = labels_on_grid(window.probabilities(model, volume).cpu().numpy(), working, original)
    return original.image_of(labels)


@dataclass(frozen=True)
class Job:
    """All that one run has."""

    config: PredictSettings
    model: nn.Module
    window: Window
    record: Record

    def predict(self, case: Case, loaded: Loaded) -> None:
        """Predict a case and write its label map."""
        output = self.config.output_path
        probabilities = self.window.probabilities(self.model, loaded.volume).cpu().numpy()
        if self.config.save_probabilities:
            with atomic_path(probabilities_file(output, case.case_id)) as temporary:
                np.savez_compressed(
                    temporary,
                    probabilities=probabilities.astype(np.float16),
                    spacing_mm=loaded.working.spacing,
                    origin_mm=loaded.working.origin,
                    direction=loaded.working.direction,
                )
        labels = labels_on_grid(probabilities, loaded.working, loaded.original)
        self.record.learned(case, loaded)
        # Written last: its presence says that the case is done.
        write_labels(loaded.original.image_of(labels), target(output, case.case_id), case.scan)


def run_predict(config: PredictSettings | None = None, /, **given: Any) -> Path:
    """Predict scans with a checkpoint and write ``<output_path>/<case>.nii.gz``, uint8, on exactly the scans' grids.

    Each scan is read and checked just before it is predicted. One that is broken stops nothing: the others are
    predicted, and all failures are reported at the end and in ``failed.json``. With ``strict`` everything is checked
    before anything is written. Run again after an interruption, it goes on: results made from the same input with the
    same checkpoint and settings are kept, all others are made again.

    The checkpoint is ours or a published one. With ``npy_path``, ``original_nii_path`` is checked to be the scans that
    were preprocessed, and their headers are taken over; without it the stored geometry is used. ``dataset`` says for a
    published checkpoint what it was trained on; for others it names the scans' cases, while spacing, window and patch
    stay those of the training. ``save_probabilities`` writes float16 (C, D, H, W) and its grid.

    Args:
        config: The settings.
        given: The same by name, instead.

    Returns:
        ``config.output_path``.

    Raises:
        InputError: lists everything that is wrong with arguments, checkpoint or output; or no scan can be predicted.
        DuomodError: some scans could not be predicted.
    """
    config = config or checked(PredictSettings, given, see="duomod settings predict")
    if config.input_path is None:
        return _run(config)
    with unpacked(config.input_path) as folder:
        return _run(config.model_copy(update={"input_path": folder}), unpacked_input=folder != config.input_path)


def _run(config: PredictSettings, unpacked_input: bool = False) -> Path:
    """Predict; of an archive, ``config.input_path`` is the folder that it was unpacked to."""
    device = choose_device(config.gpu)
    model, info, sha256, found = _load(config, device)
    if unpacked_input:
        found = replace(found, cases=[replace(case, stays=False) for case in found.cases])
    output_path = config.output_path
    scans = [path for path in (config.input_path, config.original_nii_path) if path is not None]
    _check_output(output_path, found.cases, scans)
    if config.strict:
        _check_all(found)
    window = Window(config.patch or info.patch, config, device)
    record = Record.open(
        output_path, config.model_path, _settings(config, info, sha256, window), found.cases, config.overwrite
    )
    left = [case for case in found.cases if not (config.resume and record.is_done(case))]
    kept = len(found.cases) - len(left)
    if kept or not left:
        record.claim(found.cases, left)
    if kept:
        say(f"{kept} of {len(found.cases)} cases are already predicted with this checkpoint and settings")
    failures = [Failure(None, path, (text,)) for path, text in found.problems]
    made = 0
    job = Job(config, lay_out(model, device), window, record)
    try:
        for outcome in _predicted(job, found.cases, left):
            if isinstance(outcome, Failure):
                failures.append(outcome)
            else:
                made += 1
    finally:
        if made:
            record.write()
    _report(record, failures, len(left) - made, made + kept)
    return output_path


def _predicted(job: Job, cases: Sequence[Case], left: Sequence[Case]) -> Iterator[Case | Failure]:
    """Predict cases one by one; the first that is sound claims the folder."""
    claimed = len(left) < len(cases)
    for number, case in enumerate(left, start=1):
        began = time.monotonic()
        try:
            loaded = case.load()
        except Exception as error:  # whatever a stranger's file does to its reader stops no other scan
            yield failure_of(case, error)
            continue
        if not claimed:
            job.record.claim(cases, left)
            claimed = True
        for doubt in loaded.decision.doubts:
            say(f"doubtful: {doubt}")
        try:
            job.predict(case, loaded)
        except OSError as error:
            if case.scan is None or str(error.filename) != str(case.scan):
                raise  # the output cannot be written: that stops all
            yield failure_of(case, error)
            continue
        except Exception as error:  # one scan too large, or what nobody foresaw, stops no other
            yield failure_of(case, error)
            continue
        job.record.write(at_once=False)
        how = f"{loaded.decision.modality}, {loaded.decision.by}"
        say(f"predicted {number}/{len(left)} {case.case_id} ({how}) in {time.monotonic() - began:.1f} s")
        yield case


def _check_all(found: Found) -> None:
    """Read and check everything before anything is written.

    Raises:
        InputError: lists all problems.
    """
    failures = [Failure(None, path, (text,)) for path, text in found.problems]
    for case in found.cases:
        try:
            case.load()
        except InputError as error:
            failures.append(failure_of(case, error))
    if failures:
        raise InputError(lines_of(failures))


def _report(record: Record, failures: Sequence[Failure], failed: int, there: int) -> None:
    """Write and say what could not be predicted.

    Raises:
        InputError: nothing could, by the user's mistakes; nothing is written then.
        DuomodError: some could not.
    """
    problems = lines_of(failures)
    if failures and not there and all(one.wrong_input for one in failures):
        raise InputError(problems)
    if failures and not there:
        raise DuomodError("\n".join(problems))
    record.write_failures(failures)
    if failures:
        what = f"{len(failures)} of {there + len(failures)} scans could not be predicted, the others were"
        raise DuomodError("\n".join([f"{what} ({record.output / FAILED} says which):", *problems]))


def _settings(config: PredictSettings, info: ModelInfo, sha256: str, window: Window) -> dict[str, Any]:
    """All that label maps depend on besides their scans."""
    return {
        "duomod": __version__,
        "model_sha256": sha256,
        "plugin_sha256": file_sha256(config.plugin) if config.plugin else None,
        "method": info.method,
        "num_classes": info.num_classes,
        "spec": info.spec.model_dump(mode="json") if info.spec else None,
        "patch": list(window.patch),
        "overlap": config.overlap,
        "blending": config.blending,
        "dtype": str(window.amp_dtype or torch.float32),
        "probabilities": config.save_probabilities,
    }


def _load(config: PredictSettings, device: torch.device) -> tuple[nn.Module, ModelInfo, str, Found]:
    """The model, what is known of it, its file's hash, and the cases to predict; checked to fit together."""
    path, npy_path = config.model_path, config.npy_path
    described = load_spec(config.dataset) if config.dataset else None
    for_published = described or (store_of(npy_path)[0].spec if npy_path is not None else None)
    content = read_checkpoint(path)
    model, info = predictor_of(content, path, str(device), Published(config.method, for_published), config.plugin)
    _check_model(path, info, config.method, config.num_classes, described)
    if npy_path is not None:
        _check_classes(path, info, store_of(npy_path)[0].spec)
        _check_channels(str(npy_path), info, store_of(npy_path)[0].channels)
        only = chosen_cases(config.cases)
        cases = preprocessed_cases(npy_path, info.spec, config.original_nii_path, config.split, only)
        return model, info, content.sha256, Found(cases)
    assert config.input_path is not None
    if info.spec is None:
        raise InputError(f"{path}: this checkpoint does not say what data it was trained on; name it with --dataset")
    _check_channels(str(config.input_path), info, 1)
    rule = ModalityRule.of(info, config.modality, described, config.accept_intensities)
    return model, info, content.sha256, scan_cases(config.input_path, info.spec, rule, described, config.series)


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
    """Make sure that no scan is overwritten by its own prediction, and that nothing is written outside the folder."""
    scans = {case.scan.resolve() for case in cases if case.scan is not None}
    hit = any(target(output, case.case_id).resolve() in scans for case in cases)
    if hit or any(output.resolve() == path.resolve() for path in inputs):
        raise InputError(
            f"{output}: holds the scans themselves, which results must not overwrite; choose another folder"
        )
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; give a folder for the results")
    folder = probabilities_file(output, "x").parent
    if folder.is_symlink():
        raise InputError(f"{folder}: is a link to another folder, in which nothing is written; remove it")
