"""From what the user typed to a run: data, split, settings, method, device; then the loop."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import yaml

from duomod.config import TrainConfig, train_config
from duomod.console import say
from duomod.datasets.splits import Split, resolve_split
from duomod.errors import InputError
from duomod.locks import locked
from duomod.methods.base import Method, MethodConfig
from duomod.methods.registry import chosen_method
from duomod.networks.shallow_bf16 import guard_shallow_convolutions
from duomod.option_values import merged
from duomod.preprocessing.store import Store
from duomod.sampling.streams import Crop, class_counts
from duomod.seeding import torch_seed
from duomod.settings import checked
from duomod.training.build import build_method, with_networks
from duomod.training.load import resumed_state
from duomod.training.loop import Run, fit
from duomod.training.model_info import ModelInfo
from duomod.training.precision import choose_device, choose_dtype, lay_out
from duomod.training.settings import TrainSettings
from duomod.workspace import TRAINED, read_yaml, sweep_parts, write_manifest, write_text


def run_train(settings: TrainSettings) -> Path:
    """Train one model with one seed and return its best checkpoint.

    The seed is that of weights, crops, augmentation and dropout; the split has its own, so that seeds share one split.
    At most one of labelled ratio, labelled count and split says which cases are labelled.

    Raises:
        InputError: wrong use, or data that do not fit.
    """
    cls = chosen_method(settings.model, settings.plugin)
    config, own = _all_settings(cls, settings)
    store = _open_store(settings)
    split = _split(store, cls, settings)
    device = choose_device(settings.gpu)
    dtype = choose_dtype(config.precision, device)
    facts = {
        "method": settings.model,
        "method_settings": own.model_dump(),
        "network": config.network,
        "in_channels": store.channels,
        "num_classes": store.spec.num_classes,
        "patch": config.patch or store.spec.patch,
        "spec": store.spec,
        "modalities": sorted({store.cases[case].modality for case in (*split.labelled, *split.unlabelled)}),
    }
    info = with_networks(checked(ModelInfo, facts), settings.plugin)
    steps_per_epoch = config.steps_per_epoch or _one_pass(split, config)
    total = (config.max_epochs + config.final_epoch) * steps_per_epoch
    resolved = {
        "model": settings.model,
        "preset": settings.preset,
        "seed": settings.seed,
        "data_path": str(settings.data_path.resolve()),
        "split": {"name": split.name, "labelled": list(split.labelled), "unlabelled": len(split.unlabelled)},
        "steps_per_epoch": steps_per_epoch,
        "precision": str(dtype or torch.float32).removeprefix("torch."),
        "networks": info.networks,
        "train": config.model_dump(mode="json"),
        "method": own.model_dump(mode="json"),
    }
    folder = settings.output_dir
    with locked(folder, "a training"):
        sweep_parts(folder, folder / "ckpts")
        state = _prepare_folder(folder, resolved, settings.resume, settings.overwrite)
        best = folder / "ckpts" / "best_model.pth"
        if state == "complete":
            say(f"{folder}: this run is complete; nothing to do (--overwrite trains anew)")
            return best

        torch.manual_seed(torch_seed(settings.seed, "weights"))
        crop = Crop(info.patch, settings.seed, config.sampling, config.augment)
        method = build_method(info, class_counts(store, split.labelled, crop, own.counts_from), plugin=settings.plugin)
        guard_shallow_convolutions(method, device, dtype)
        lay_out(method, device)
        last = resumed_state(folder / "ckpts" / "last.pth", info) if state == "resume" else None
        run = Run(folder, method, info, store, split, config, settings.seed, device, dtype, total, steps_per_epoch)
        _announce(run, settings)
        _fit_and_record(run, last)
    return best


def _all_settings(cls: type[Method], settings: TrainSettings) -> tuple[TrainConfig, MethodConfig]:
    """The training's settings and the method's own: of the preset, of the published code, and what was asked for."""
    reference = settings.preset == "reference"
    of_method = cls.Config.reference_training if reference else {}
    config = train_config(settings.preset, merged(of_method, settings.settings))
    see = f"duomod settings {settings.model}"
    return config, cls.Config.preset("reference" if reference else "default", settings.method_settings, see)


def _open_store(settings: TrainSettings) -> Store:
    store = Store.open(settings.data_path)
    wanted, classes = settings.num_classes, store.spec.num_classes
    if wanted is not None and wanted != classes:
        raise InputError(
            f"--num_classes {wanted} disagrees with {settings.data_path / 'dataset.json'}, which has {classes} classes"
            " (background included)"
        )
    return store


def _split(store: Store, cls: type[Method], settings: TrainSettings) -> Split:
    split = resolve_split(
        store,
        labeled_ratio=settings.labeled_ratio,
        labeled_count=settings.labeled_count,
        split=settings.split,
        seed=settings.split_seed,
    )
    if cls.uses_all_labels:
        split = _fully_labelled(store, split)
    _describe(store, split)
    return split


def _announce(run: Run, settings: TrainSettings) -> None:
    sampling = run.config.sampling
    unlabelled = f" + {sampling.batch_unlabeled or sampling.batch} unlabelled" if run.method.uses_unlabelled else ""
    say(
        f"training {settings.model} (seed {run.seed}, preset {settings.preset}): {run.total_steps} steps of"
        f" {sampling.batch} labelled{unlabelled} patches {' x '.join(map(str, run.info.patch))},"
        f" {run.info.networks} of {_parameters(run.method):,} parameters"
    )


def _fit_and_record(run: Run, last: dict[str, Any] | None) -> None:
    """Train, and write down what it took."""
    began, cpu_began = time.monotonic(), time.process_time()
    final = fit(run, last)
    on_gpu = run.device.type == "cuda"
    write_manifest(
        run.folder,
        "train",
        networks=run.info.networks,
        steps=final.step,
        best_step=final.best_step,
        best_validation_dice=final.best_dice if final.best_dice >= 0 else None,
        seconds=round(time.monotonic() - began, 1),
        cpu_seconds=round(time.process_time() - cpu_began, 1),
        device=str(run.device),
        torch=torch.__version__,
        peak_memory_mib=round(torch.cuda.max_memory_allocated(run.device) / 2**20) if on_gpu else None,
    )


def _fully_labelled(store: Store, split: Split) -> Split:
    """The split of the upper bound: every labelled training case is used."""
    training = [*split.labelled, *split.unlabelled]
    labelled = tuple(sorted(case for case in training if store.cases[case].labelled))
    return Split(split.name, labelled, tuple(c for c in training if c not in set(labelled)), split.eval, split.test)


def _one_pass(split: Split, config: TrainConfig) -> int:
    """Steps of one pass over the unlabelled cases (over the labelled ones where there are no others)."""
    cases = len(split.unlabelled) or len(split.labelled)
    per_step = config.sampling.batch_unlabeled or config.sampling.batch
    return max(1, -(-cases // per_step))


def _parameters(method: Method) -> int:
    return sum(p.numel() for p in method.parameters() if p.requires_grad)


def _describe(store: Store, split: Split) -> None:
    say(
        f"split {split.name}: {len(split.labelled)} labelled, {len(split.unlabelled)} unlabelled,"
        f" {len(split.eval)} evaluation, {len(split.test)} test cases"
    )
    counts = store.class_counts(split.labelled)
    absent = [name for name, count in zip(store.spec.classes, counts, strict=True) if count == 0]
    if absent:
        say(f"no labelled training case has {', '.join(absent)}: the model cannot learn it")


def _prepare_folder(folder: Path, resolved: dict[str, Any], resume: bool, overwrite: bool) -> str:
    """Return ``new``, ``resume`` or ``complete``; write or check ``config.yaml``.

    Raises:
        InputError: the folder holds a run and neither --resume nor --overwrite is given, or the settings differ.
    """
    stored_path, last = folder / "config.yaml", folder / "ckpts" / "last.pth"
    complete = (folder / TRAINED).is_file()
    if overwrite or not (last.is_file() or complete):
        for old in (folder / TRAINED, last, folder / "ckpts" / "best_model.pth", folder / "metrics.jsonl"):
            old.unlink(missing_ok=True)
        write_text(stored_path, yaml.safe_dump(resolved, sort_keys=False))
        if resume:
            say(f"{folder}: nothing to resume; starting from the beginning")
        return "new"
    stored = read_yaml(stored_path) if stored_path.is_file() else {}
    if not isinstance(stored, dict) or not isinstance(stored.get("train", {}), dict):
        raise InputError(f"{stored_path}: not the settings of a run; put the file back, or --overwrite to start anew")
    # What a run begun before its networks were recorded cannot say, its checkpoint does.
    changed = _differences({"networks": resolved["networks"], **_as_written_now(stored)}, resolved)
    if changed:
        raise InputError(
            [
                f"{folder}: holds a run with other settings; give another --output_dir, or --overwrite to replace it",
                *changed,
            ]
        )
    if complete:
        return "complete"
    if not resume:
        raise InputError(f"{folder}: holds an unfinished run; add --resume to go on, or --overwrite to start anew")
    return "resume"


def _as_written_now(stored: dict[str, Any]) -> dict[str, Any]:
    """A run's ``config.yaml`` with its augmentation as a list, which version 0.1 wrote as single settings."""
    augment = stored.get("train", {}).get("augment", {})
    if not isinstance(augment, dict) or "transforms" in augment:
        return stored
    # The preset says where its flips come from, which no setting of version 0.1 did.
    now = train_config(str(stored.get("preset", "default")), {"augment": augment}).augment
    return {**stored, "train": {**stored.get("train", {}), "augment": now.model_dump(mode="json")}}


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [line for key in {**old, **new} for line in _differences(old.get(key), new.get(key), f"{path}.{key}")]
    return [] if old == new else [f"  {path.lstrip('.')}: was {old}, now {new}"]
