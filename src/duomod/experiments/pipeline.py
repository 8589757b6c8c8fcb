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

from duomod.console import out, plain, say
from duomod.errors import DuomodError
from duomod.evaluation.settings import AggregateSettings, CompareSettings, EvaluateSettings
from duomod.experiments.settings import CHECKPOINT, MethodEntry, PipelineConfig, PipelineSettings, load_pipeline
from duomod.flags import command_line
from duomod.inference.settings import PredictSettings
from duomod.preprocessing.settings import PreprocessSettings
from duomod.report.settings import ReportSettings
from duomod.settings import Settings
from duomod.training.settings import TrainSettings


@dataclass
class Journal:
    """Runs steps one after another and remembers what failed."""

    dry_run: bool
    failures: list[str] = field(default_factory=list)
    misuse: bool = True

    def step(self, title: str, action: Callable[[], object], command: Settings | None = None) -> bool:
        """Run one step; returns whether it succeeded. Only Ctrl-C gets through.

        A dry run prints the command that does the same.
        """
        say(f"── {title}")
        if self.dry_run:
            if command is not None:
                out.print(command_line(command), markup=False)
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


def run_pipeline(settings: PipelineSettings) -> Path:
    """Run the experiment of a file; see :func:`run_experiment`.

    Raises:
        InputError: lists every wrong field of the file.
    """
    return run_experiment(load_pipeline(settings.config), settings.dry_run)


def run_experiment(config: PipelineConfig, dry_run: bool = False) -> Path:
    """Run the stages; returns the path of the last result.

    Raises:
        StepsFailed: exit code 1; lists what failed, after everything else was done.
    """
    journal = Journal(dry_run)
    if config.stages.preprocessing:
        preprocessing = config.preprocess_settings()
        journal.step(f"preprocess {preprocessing.data_path}", lambda: _preprocess(preprocessing), preprocessing)
    runs = [(entry, seed) for entry in config.methods for seed in config.seeds]
    if config.stages.training:
        trained = _train_all(config, runs, journal)
        runs = [run for run, succeeded in zip(runs, trained, strict=True) if succeeded]
    for entry, seed in runs:
        _predict_and_evaluate(config, entry, seed, journal)
    results = [entry.log_root for entry in config.methods[-1:]]
    if config.stages.aggregation:
        for entry in config.methods:
            settings = config.aggregate_settings(entry)
            if journal.step(f"{entry.title}: aggregate", partial(_aggregate, settings), settings):
                results.append(entry.summary)
    if config.stages.comparison:
        comparison = config.compare_settings()
        if journal.step("compare", lambda: _compare(comparison), comparison):
            results.append(comparison.output)
    if config.stages.report:
        report = config.report_settings()
        if journal.step("report", lambda: _report(report), report):
            results.append(report.output)
    if journal.failures:
        raise StepsFailed(
            "\n".join([f"{len(journal.failures)} step(s) failed; everything else is done", *journal.failures])
        )
    return results[-1]


def _train_all(config: PipelineConfig, runs: Sequence[tuple[MethodEntry, int]], journal: Journal) -> list[bool]:
    """Train every run, several at a time where asked for; returns which succeeded."""
    titles = [f"{entry.title}, seed {seed}: train" for entry, seed in runs]
    settings = [config.train_settings(entry, seed) for entry, seed in runs]
    if config.jobs == 1 or journal.dry_run:
        return [journal.step(title, partial(_train, one), one) for title, one in zip(titles, settings, strict=True)]
    # A small network does not fill several cores: one run per core is faster than one run on all.
    threads = max(1, (os.cpu_count() or 1) // config.jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(config.jobs, mp_context=context, initializer=_share_machine, initargs=(threads,)) as pool:
        futures = [pool.submit(_train, one) for one in settings]
        return [journal.step(title, future.result) for title, future in zip(titles, futures, strict=True)]


def _share_machine(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    plain()


def _predict_and_evaluate(config: PipelineConfig, entry: MethodEntry, seed: int, journal: Journal) -> None:
    title = f"{entry.title}, seed {seed}"
    run = entry.run(seed)
    if config.stages.inference:
        if not journal.dry_run and not (run / CHECKPOINT).is_file():
            journal.fail(title, f"missing seed: {run / CHECKPOINT} does not exist", misuse=False)
            return
        prediction = config.predict_settings(entry, seed)
        if not journal.step(f"{title}: predict", lambda: _predict(prediction), prediction):
            return
    if config.stages.evaluation:
        if not journal.dry_run and not (run / "predictions").is_dir():
            journal.fail(title, f"missing seed: {run / 'predictions'} does not exist", misuse=False)
            return
        evaluation = config.evaluate_settings(entry, seed)
        journal.step(f"{title}: evaluate", lambda: _evaluate(evaluation), evaluation)


def _preprocess(settings: PreprocessSettings) -> None:
    from duomod.preprocessing.preprocess import run_preprocess

    run_preprocess(settings)


def _train(settings: TrainSettings) -> None:
    from duomod.training.setup import run_train

    run_train(settings)


def _predict(settings: PredictSettings) -> None:
    from duomod.inference.predict import run_predict

    run_predict(settings)


def _evaluate(settings: EvaluateSettings) -> None:
    from duomod.evaluation.evaluate import run_evaluate
    from duomod.evaluation.texts import result_text

    out.print(result_text(run_evaluate(settings)), markup=False)


def _aggregate(settings: AggregateSettings) -> None:
    from duomod.evaluation.summary_files import run_aggregate

    out.print(run_aggregate(settings).read_text(encoding="utf-8").rstrip(), markup=False)


def _compare(settings: CompareSettings) -> None:
    from duomod.evaluation.compare import run_compare

    out.print(run_compare(settings).read_text(encoding="utf-8").rstrip(), markup=False)


def _report(settings: ReportSettings) -> None:
    from duomod.report.page import run_report

    run_report(settings)
