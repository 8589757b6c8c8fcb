"""Whole experiments: stages × methods × seeds, from one YAML file. What fails is reported; the rest goes on."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from duomod.config import merged
from duomod.console import plain, say
from duomod.errors import DuomodError, InputError

CHECKPOINT = Path("ckpts") / "best_model.pth"


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Stages(_Settings):
    """Which stages run, in this order."""

    preprocessing: bool = False
    training: bool = False
    inference: bool = True
    evaluation: bool = True
    aggregation: bool = True


class Preprocessing(_Settings):
    """``duomod preprocess``."""

    data_path: Path
    output_path: Path
    workers: int = Field(2, ge=1)
    seed: int = 0


class Training(_Settings):
    """``duomod train``, the same for every method."""

    data_path: Path
    preset: str = "default"
    labeled_ratio: float | None = None
    labeled_count: int | None = None
    split: str | None = None
    settings: dict[str, Any] = {}


class MethodEntry(_Settings):
    """One method, or one variant of it: its runs are ``log_root/seed_<n>``.

    ``npy_path`` holds preprocessed test cases, ``nii_path`` the scans they came from; ``task`` names the data set.
    ``settings`` are the method's own; ``train_settings`` replace those of the section ``training``.
    """

    name: str
    log_root: Path
    npy_path: Path | None = None
    nii_path: Path
    task: str | None = None
    settings: dict[str, Any] = {}
    train_settings: dict[str, Any] = {}

    @property
    def title(self) -> str:
        """What messages call it: the method, and the variant's folder where that has another name."""
        return self.name if self.log_root.name == self.name else f"{self.name} ({self.log_root.name})"


class PipelineConfig(_Settings):
    """An experiment. Paths are relative to the working directory, as in the original shell script."""

    methods: tuple[MethodEntry, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    gt_path: Path
    num_classes: int | None = None
    gpu: str = "0"
    stages: Stages = Stages()
    preprocessing: Preprocessing | None = None
    training: Training | None = None
    split: str | None = Field(None, description="with npy_path: only the cases of this list")
    overlap: float = Field(0.5, ge=0, lt=1)
    workers: int = Field(2, ge=1, description="cases handled at the same time")
    jobs: int = Field(1, ge=1, description="trainings at the same time, each with its share of the CPU's cores")
    min_seeds: int = Field(2, ge=1)
    metrics: tuple[str, ...] = Field(("dice", "asd"), min_length=1, description="as evaluate's --metrics")

    def problems(self) -> list[str]:
        """What is missing for the stages that are switched on."""
        found = []
        if self.stages.preprocessing and self.preprocessing is None:
            found.append("preprocessing is on, but the section 'preprocessing' is missing")
        if self.stages.training and self.training is None:
            found.append("training is on, but the section 'training' is missing")
        roots = [method.log_root for method in self.methods]
        found += [
            f"log_root {root} is listed twice; give every variant of a method a folder of its own"
            for root in sorted({r for r in roots if roots.count(r) > 1})
        ]
        return found


def load_pipeline(path: Path) -> PipelineConfig:
    """Read an experiment's YAML file.

    Raises:
        InputError: missing, not YAML, or lists every wrong field.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: file not found") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML ({error})") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected fields such as methods, seeds and gt_path")
    try:
        config = PipelineConfig.model_validate(data)
    except ValidationError as error:
        raise InputError([f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]) from None
    problems = config.problems()
    if problems:
        raise InputError([f"{path}: {problem}" for problem in problems])
    return config


@dataclass
class Journal:
    """Runs steps one after another and remembers what failed."""

    dry_run: bool
    failures: list[str] = field(default_factory=list)
    misuse: bool = True

    def step(self, title: str, action: Callable[[], object]) -> bool:
        """Run one step; returns whether it succeeded. Only Ctrl-C gets through."""
        say(f"── {title}")
        if self.dry_run:
            return True
        try:
            action()
        except DuomodError as error:
            if error.exit_code == 130:
                raise
            self.fail(title, str(error), misuse=error.exit_code == 2)
        except Exception as error:  # a crash in one run must not take the others with it
            say(traceback.format_exc())
            self.fail(title, f"{type(error).__name__}: {error}", misuse=False)
        else:
            return True
        return False

    def fail(self, title: str, reason: str, misuse: bool) -> None:
        """Report a failure and go on."""
        say(f"   failed: {reason}")
        self.failures.append(f"{title}: {reason}")
        self.misuse = self.misuse and misuse


class StepsFailed(DuomodError):
    """Some steps of a pipeline failed; the others are done."""


def run_pipeline(config: PipelineConfig, dry_run: bool = False) -> Path:
    """Run the stages; returns the last summary's path.

    Raises:
        StepsFailed: exit code 1; lists what failed, after everything else was done.
    """
    journal = Journal(dry_run)
    if config.stages.preprocessing and config.preprocessing is not None:
        journal.step(f"preprocess {config.preprocessing.data_path}", lambda: _preprocess(config))
    runs = [(entry, seed) for entry in config.methods for seed in config.seeds]
    if config.stages.training:
        trained = _train_all(config, runs, journal)
        runs = [run for run, succeeded in zip(runs, trained, strict=True) if succeeded]
    for entry, seed in runs:
        _predict_and_evaluate(config, entry, seed, journal)
    summaries = []
    if config.stages.aggregation:
        for entry in config.methods:
            summary = entry.log_root / f"{entry.name}_summary_results.txt"
            if journal.step(f"{entry.title}: aggregate", partial(_aggregate, config, entry, summary)):
                summaries.append(summary)
    if journal.failures:
        raise StepsFailed(
            "\n".join([f"{len(journal.failures)} step(s) failed; everything else is done", *journal.failures])
        )
    return summaries[-1] if summaries else config.methods[-1].log_root


def _train_all(config: PipelineConfig, runs: Sequence[tuple[MethodEntry, int]], journal: Journal) -> list[bool]:
    """Train every run, several at a time where asked for; returns which succeeded."""
    titles = [f"{entry.title}, seed {seed}: train" for entry, seed in runs]
    if config.jobs == 1 or journal.dry_run:
        return [journal.step(title, partial(_train, config, *run)) for title, run in zip(titles, runs, strict=True)]
    # A small network does not fill several cores: one run per core is faster than one run on all.
    threads = max(1, (os.cpu_count() or 1) // config.jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(config.jobs, mp_context=context, initializer=_share_machine, initargs=(threads,)) as pool:
        futures = [pool.submit(_train, config, *run) for run in runs]
        return [journal.step(title, future.result) for title, future in zip(titles, futures, strict=True)]


def _share_machine(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    plain()


def _predict_and_evaluate(config: PipelineConfig, entry: MethodEntry, seed: int, journal: Journal) -> None:
    title = f"{entry.title}, seed {seed}"
    run = entry.log_root / f"seed_{seed}"
    if config.stages.inference:
        if not journal.dry_run and not (run / CHECKPOINT).is_file():
            journal.fail(title, f"missing seed: {run / CHECKPOINT} does not exist", misuse=False)
            return
        if not journal.step(f"{title}: predict", lambda: _predict(config, entry, run)):
            return
    if config.stages.evaluation:
        if not journal.dry_run and not (run / "predictions").is_dir():
            journal.fail(title, f"missing seed: {run / 'predictions'} does not exist", misuse=False)
            return
        journal.step(f"{title}: evaluate", lambda: _evaluate(config, entry, run))


def _preprocess(config: PipelineConfig) -> None:
    from duomod.preprocessing.preprocess import run_preprocess

    assert config.preprocessing is not None
    section = config.preprocessing
    run_preprocess(
        section.data_path,
        section.output_path,
        dataset=next((entry.task for entry in config.methods if entry.task), None),
        num_classes=config.num_classes,
        workers=section.workers,
        seed=section.seed,
    )


def _train(config: PipelineConfig, entry: MethodEntry, seed: int) -> None:
    from duomod.training.setup import run_train

    assert config.training is not None
    section = config.training
    run = entry.log_root / f"seed_{seed}"
    run_train(
        model=entry.name,
        data_path=section.data_path,
        output_dir=run,
        seed=seed,
        gpu=config.gpu,
        num_classes=config.num_classes,
        preset=section.preset,
        settings=merged(section.settings, entry.train_settings),
        method_settings=entry.settings,
        labeled_ratio=section.labeled_ratio,
        labeled_count=section.labeled_count,
        split_name=section.split,
        resume=(run / "ckpts" / "last.pth").is_file(),
    )


def _predict(config: PipelineConfig, entry: MethodEntry, run: Path) -> None:
    from duomod.inference.predict import run_predict
    from duomod.training.precision import choose_device

    run_predict(
        model_path=run / CHECKPOINT,
        output_path=run / "predictions",
        npy_path=entry.npy_path,
        original_nii_path=entry.nii_path if entry.npy_path else None,
        input_path=None if entry.npy_path else entry.nii_path,
        device=str(choose_device(config.gpu)),
        method=entry.name,
        dataset=entry.task,
        num_classes=config.num_classes,
        split=config.split if entry.npy_path else None,
        overlap=config.overlap,
    )


def _listed_cases(config: PipelineConfig, entry: MethodEntry) -> tuple[str, ...] | None:
    from duomod.datasets.splits import read_list

    if config.split is None or entry.npy_path is None:
        return None
    return read_list(entry.npy_path.parent / "splits" / f"{config.split}.txt")


def _evaluate(config: PipelineConfig, entry: MethodEntry, run: Path) -> None:
    from duomod.evaluation.evaluate import run_evaluate

    run_evaluate(
        run / "predictions",
        config.gt_path,
        output_csv=run / "result.csv",
        num_classes=config.num_classes,
        dataset=entry.task,
        metrics=config.metrics,
        workers=config.workers,
        cases=_listed_cases(config, entry),
    )


def _aggregate(config: PipelineConfig, entry: MethodEntry, summary: Path) -> None:
    from duomod.evaluation.aggregate import run_aggregate

    run_aggregate(
        entry.log_root,
        aggregated_csv_output=entry.log_root / f"{entry.name}_aggregated_metrics.csv",
        summary_output=summary,
        min_seeds=config.min_seeds,
        dataset=entry.task,
    )
