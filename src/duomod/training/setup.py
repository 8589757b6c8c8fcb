"""From what the user typed to a run: data, split, settings, method, device; then the loop."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

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
from duomod.preprocessing.verify import verify
from duomod.sampling.streams import Crop, class_counts, demand_cases
from duomod.seeding import torch_seed
from duomod.settings import checked
from duomod.training.build import build_method, with_networks
from duomod.training.loop import fit
from duomod.training.model_info import ModelInfo
from duomod.training.precision import choose_device, choose_dtype, lay_out
from duomod.training.rehearsal import demand_patch
from duomod.training.run import Run
from duomod.training.run_folder import MACHINE, as_on, data_sha256, machine, prepared, saved_state
from duomod.training.settings import TrainSettings
from duomod.workspace import sweep_parts, write_manifest


@dataclass(frozen=True)
class _Plan:
    """What was asked for, looked up and checked; nothing is written yet."""

    settings: TrainSettings
    config: TrainConfig
    own: MethodConfig
    store: Store
    split: Split
    device: torch.device
    dtype: torch.dtype | None
    info: ModelInfo
    steps_per_epoch: int

    def resolved(self) -> dict[str, Any]:
        """The content of ``config.yaml``."""
        split = self.split
        return {
            "model": self.settings.model,
            "preset": self.settings.preset,
            "seed": self.settings.seed,
            "data_path": str(self.settings.data_path.resolve()),
            "data_sha256": data_sha256(self.store),
            "split": {"name": split.name, "labelled": list(split.labelled), "unlabelled": len(split.unlabelled)},
            "steps_per_epoch": self.steps_per_epoch,
            "precision": str(self.dtype or torch.float32).removeprefix("torch."),
            "networks": self.info.networks,
            "train": self.config.model_dump(mode="json"),
            "method": self.own.model_dump(mode="json"),
            MACHINE: machine(self.device),
        }

    def run(self) -> Run:
        """The run, with fresh weights."""
        seed, info = self.settings.seed, self.info
        torch.manual_seed(torch_seed(seed, "weights"))
        crop = Crop(info.patch, seed, self.config.sampling, self.config.augment)
        counts = class_counts(self.store, self.split.labelled, crop, self.own.counts_from)
        method = build_method(info, counts, plugin=self.settings.plugin)
        guard_shallow_convolutions(method, self.device, self.dtype)
        lay_out(method, self.device)
        return Run(
            folder=self.settings.output_dir,
            method=method,
            info=info,
            store=self.store,
            split=self.split,
            config=self.config,
            seed=seed,
            device=self.device,
            dtype=self.dtype,
            total_steps=(self.config.max_epochs + self.config.final_epoch) * self.steps_per_epoch,
            steps_per_epoch=self.steps_per_epoch,
            on_nan=self.settings.on_nan,
        )


def run_train(settings: TrainSettings) -> Path:
    """Train one model with one seed and return its best checkpoint.

    The seed is that of weights, crops, augmentation and dropout; the split has its own, so that seeds share one split.
    At most one of labelled ratio, labelled count and split says which cases are labelled.

    Raises:
        InputError: wrong use, data that do not fit, or another training in the same folder.
    """
    plan = _planned(settings)
    folder = settings.output_dir
    best = folder / "ckpts" / "best_model.pth"
    with locked(folder, "a training"):
        sweep_parts(folder, folder / "ckpts")
        resolved = plan.resolved()
        condition, stored = prepared(folder, resolved, settings.resume, settings.overwrite)
        if condition == "complete":
            say(f"{folder}: this run is complete; nothing to do (--overwrite trains anew)")
            return best
        last = saved_state(folder, plan.info) if condition == "unfinished" else None
        with as_on(stored.get(MACHINE, {}), resolved[MACHINE]):
            run = plan.run()
            _announce(run, settings)
            _fit_and_record(run, last)
    return best


def _planned(settings: TrainSettings) -> _Plan:
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
    demand_cases(store, split, cls.uses_unlabelled)
    demand_patch(info, config.sampling, settings.plugin)
    steps_per_epoch = config.steps_per_epoch or _one_pass(split, config)
    return _Plan(settings, config, own, store, split, device, dtype, info, steps_per_epoch)


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
    verify(store, [*split.labelled, *(split.unlabelled if cls.uses_unlabelled else ()), *split.eval])
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
        skipped_steps=final.skipped,
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
