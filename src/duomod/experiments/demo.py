"""The demo: the whole chain on the built-in phantom, small enough for two CPU cores and a coffee."""

from __future__ import annotations

import time
from pathlib import Path

from duomod.console import out, say
from duomod.datasets.phantom import write_phantom
from duomod.experiments.pipeline import (
    MethodEntry,
    PipelineConfig,
    Preprocessing,
    Stages,
    Training,
    run_pipeline,
)
from duomod.extras import require_report_packages
from duomod.report.page import run_report
from duomod.report.tables import side_by_side
from duomod.workspace import write_text

METHODS = ("supervised", "cps", "duomodnet")
SEEDS = (0, 1)
LABELED = 3
CASES = 24
#: Of the compact preset's 50 steps each; what fits into eight minutes on two cores.
EPOCHS = 9


def run_demo(output: Path, gpu: str = "", max_epochs: int | None = None) -> Path:
    """Generate a phantom, train three methods with two seeds each, predict, evaluate, aggregate, report.

    Everything is resumable: run again after an interruption, it goes on.

    Args:
        output: Folder for data and results.
        gpu: GPU number, or "" for the CPU.
        max_epochs: Epochs of 50 steps; default 9.

    Returns:
        The report's page.
    """
    require_report_packages("duomod demo")
    began = time.monotonic()
    raw, data, logs = output / "phantom", output / "preprocessed", output / "logs"
    write_phantom(raw, cases=CASES, seed=0, preset="tiny", workers=2)
    config = PipelineConfig(
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
        gpu=gpu,
        jobs=1 if gpu else 2,
        stages=Stages(preprocessing=True, training=True),
        preprocessing=Preprocessing(data_path=raw, output_path=data),
        training=Training(
            data_path=data,
            preset="compact",
            labeled_count=LABELED,
            settings={"max_epochs": max_epochs or EPOCHS},
        ),
    )
    run_pipeline(config)
    table = side_by_side([logs / name for name in METHODS])
    out.print(table, markup=False)
    write_text(output / "comparison.txt", table + "\n")
    page = run_report([logs / name for name in METHODS], output / "report", title="duomod demo")
    say(f"finished in {time.monotonic() - began:.0f} s")
    for name in METHODS:
        print(logs / name / f"{name}_summary_results.txt")
    return page
