"""The demo: the whole chain on the built-in phantom, small enough for two CPU cores and a coffee."""

from __future__ import annotations

import time
from pathlib import Path

from duomod.console import say
from duomod.datasets.phantom import write_phantom
from duomod.datasets.phantom.settings import PhantomSettings
from duomod.evaluation.settings import EvaluateOptions
from duomod.evaluation.tables import side_by_side
from duomod.experiments.pipeline import run_experiment
from duomod.experiments.settings import DemoSettings, MethodEntry, PipelineConfig, Stages
from duomod.extras import require_report_packages
from duomod.flags import command_line
from duomod.preprocessing.settings import PreprocessOptions
from duomod.report.settings import ReportOptions
from duomod.training.settings import TrainOptions
from duomod.workspace import write_text

METHODS = ("supervised", "cps", "duomodnet")
SEEDS = (0, 1)
LABELED = 3


def run_demo(settings: DemoSettings) -> Path:
    """Generate a phantom, train three methods with two seeds each, predict, evaluate, aggregate, report.

    Everything is resumable: run again after an interruption, it goes on.

    Returns:
        The report's page; ``comparison.txt`` in ``settings.output`` has the methods side by side.
    """
    require_report_packages("duomod demo")
    began = time.monotonic()
    raw, logs = settings.output / "phantom", settings.output / "logs"
    write_phantom(PhantomSettings(out=raw, cases=settings.cases, preset="tiny"))
    run_experiment(_experiment(settings, raw, settings.output / "preprocessed", logs), command_line(settings))
    write_text(comparison_of(settings), side_by_side([logs / name for name in METHODS]) + "\n")
    say(f"finished in {time.monotonic() - began:.0f} s")
    return settings.output / "report" / "index.html"


def summaries_of(settings: DemoSettings) -> list[Path]:
    """The summary of each method."""
    return [settings.output / "logs" / name / f"{name}_summary_results.txt" for name in METHODS]


def comparison_of(settings: DemoSettings) -> Path:
    """The table of all methods side by side, as text."""
    return settings.output / "comparison.txt"


def _experiment(settings: DemoSettings, raw: Path, data: Path, logs: Path) -> PipelineConfig:
    return PipelineConfig(
        methods=tuple(
            MethodEntry(
                name=name,
                log_root=logs / name,
                npy_path=data / "imagesVa",
                nii_path=raw / "imagesVa",
                task="phantom_tiny",
            )
            for name in METHODS
        ),
        seeds=SEEDS,
        gt_path=raw / "labelsVa",
        gpu=settings.gpu,
        jobs=1 if settings.gpu else 2,
        stages=Stages(preprocessing=True, training=True, report=True),
        evaluation=EvaluateOptions(workers=1),  # two at the same time fill the two cores that the demo is made for
        preprocessing=PreprocessOptions(data_path=raw, output_path=data),
        training=TrainOptions(
            data_path=data,
            preset="compact",
            labeled_count=LABELED,
            settings={"max_epochs": settings.max_epochs, "steps_per_epoch": settings.steps_per_epoch},
        ),
        report=ReportOptions(output=settings.output / "report", title="duomod demo"),
    )
