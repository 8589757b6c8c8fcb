"""All methods on equal terms: the same data, split, network, steps, crops and augmentation, on two CPU cores.

    python benchmarks/methods.py phantom                        # built-in phantom, 3 of 60 training scans labelled
    python benchmarks/methods.py oasis --data DATA/oasis        # 15 brain structures, 3 labelled scans
    python benchmarks/methods.py la --data DATA/la              # left atrium, 8 labelled scans
    python benchmarks/methods.py oasis --data DATA/oasis --ablation     # variants of DuoMod-Net, on validation scans

Every method runs with seed 0; the eight best on *validation* scans and every DuoMod-Net run with seeds 0, 1, 2. The
only validation is the one after the last step, so that the best and the last model are the same. Interrupted: run
again, it goes on. Ends with a table in Markdown and its path.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duomod.datasets.phantom import write_phantom
from duomod.datasets.phantom.settings import PhantomSettings
from duomod.evaluation.aggregate import Spread, Summary
from duomod.evaluation.metrics import Metric
from duomod.evaluation.settings import AggregateOptions, EvaluateOptions
from duomod.evaluation.tables import summaries_of
from duomod.experiments.pipeline import run_experiment
from duomod.experiments.schedule import StepsFailed
from duomod.experiments.settings import MethodEntry, PipelineConfig, Stages
from duomod.inference.settings import PredictOptions
from duomod.methods.registry import METHODS
from duomod.preprocessing.preprocess import run_preprocess
from duomod.preprocessing.settings import PreprocessSettings
from duomod.training.settings import TrainOptions
from duomod.workspace import write_text

SEEDS = (0, 1, 2)
OURS = ("duomodnet", "duomodnet_ce", "duomodnet_rlm")
BEST = 8
#: Scans of the phantom.
CASES = 80
METRICS = ("dice", "asd", "recall")


@dataclass(frozen=True)
class Bench:
    """One data set and what every method gets on it. ``images`` and ``truth`` are relative to the raw data set."""

    dataset: str
    labelled: int
    steps: int
    settings: dict[str, Any]
    folder: str
    images: str
    truth: str
    split: str = "test"
    methods: tuple[str, ...] = ()
    seeds_for_all: tuple[int, ...] = (0,)


BENCHES = {
    "phantom": Bench(
        "phantom_tiny",
        3,
        600,
        {"patch": [24, 32, 32], "network": {"name": "vnet", "filters": 8, "norm": "instance"}},
        "imagesVa",
        "imagesVa",
        "labelsVa",
    ),
    "oasis": Bench(
        "oasis",
        3,
        400,
        {"patch": [24, 32, 32], "sampling": {"batch": 4, "batch_unlabeled": 2, "jitter": 0.0}},
        "imagesTr",
        "images",
        "labels",
    ),
    "la": Bench(
        "la",
        8,
        300,
        {"patch": [32, 40, 40]},
        "imagesVa",
        "test/images",
        "test/labels",
        methods=("supervised", "uamt", "cps", "magicnet", "bcp", "duomodnet"),
        seeds_for_all=SEEDS,
    ),
}


@dataclass(frozen=True)
class Variant:
    """A row of the table: a method, perhaps with other settings."""

    label: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    train_settings: dict[str, Any] = field(default_factory=dict)


#: DuoMod-Net with one thing changed at a time (docs/methods/duomodnet.md, DAFR), from the direction ``head`` on.
ABLATION = (
    Variant("head", "duomodnet", {"direction": "head"}),
    Variant("foreground", "duomodnet", {"direction": "foreground"}),
    Variant("tail", "duomodnet", {"direction": "tail"}),
    Variant("none", "duomodnet", {"direction": "none"}),
    Variant("head, no clamp", "duomodnet", {"direction": "head", "clamp": False}),
    Variant("head, no ramp", "duomodnet", {"direction": "head", "dafr_rampup": 0.0}),
    Variant("head, RLM momentum 0.9", "duomodnet", {"direction": "head", "rlm_momentum": 0.9}),
    Variant("head, RLM momentum 0.999", "duomodnet", {"direction": "head", "rlm_momentum": 0.999}),
    Variant("head, two updates", "duomodnet", {"direction": "head", "rlm_updates": "twice"}),
    Variant("foreground, two updates", "duomodnet", {"direction": "foreground", "rlm_updates": "twice"}),
    Variant("foreground, RLM floor 0.05", "duomodnet", {"direction": "foreground", "rlm_floor": 0.05}),
    Variant("none, two updates", "duomodnet", {"direction": "none", "rlm_updates": "twice"}),
    Variant("head, crops by volume", "duomodnet", {"direction": "head"}, {"sampling": {"labelled": "foreground"}}),
    Variant("head, uniform crops", "duomodnet", {"direction": "head"}, {"sampling": {"labelled": "uniform"}}),
)


def main() -> None:
    """Prepare the data, run the pipeline twice, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", choices=BENCHES)
    parser.add_argument("--data", type=Path, help="raw data set (oasis, la)")
    parser.add_argument("--output", type=Path, default=Path("bench"))
    parser.add_argument("--jobs", type=int, default=2, help="trainings at the same time")
    parser.add_argument("--gpu", default="")
    parser.add_argument("--ablation", action="store_true", help="variants of DuoMod-Net on the validation scans")
    parser.add_argument("--seeds", type=int, nargs="+", help="other seeds than 0 1 2")
    parser.add_argument("--only", nargs="+", help="run only these rows, with all seeds")
    arguments = parser.parse_args()
    bench = BENCHES[arguments.bench]
    folder = arguments.output / arguments.bench
    raw, preprocessed = prepare(arguments.bench, bench, arguments.data, folder)
    study = Study(
        bench, raw, preprocessed, folder, arguments.gpu, arguments.jobs, "eval" if arguments.ablation else bench.split
    )
    seeds = tuple(arguments.seeds or SEEDS)
    rows = ABLATION if arguments.ablation else [Variant(name, name) for name in bench.methods or METHODS.names()]
    chosen = [row for row in rows if not arguments.only or row.label in arguments.only]
    if arguments.ablation or arguments.only:
        study.run(chosen, seeds)
    else:
        study.run(rows, bench.seeds_for_all)
        if bench.seeds_for_all != seeds:
            study.run(study.chosen(rows), seeds)
    result = folder / ("ablation.md" if arguments.ablation else "methods.md")
    write_text(result, study.table(rows) + "\n")
    print(result.read_text(encoding="utf-8"))
    print(result)


def prepare(name: str, bench: Bench, data: Path | None, folder: Path) -> tuple[Path, Path]:
    """Return the raw and the preprocessed data set, making what is missing."""
    if name == "phantom":
        raw = write_phantom(PhantomSettings(out=folder / "raw", cases=CASES, preset="tiny"))
    elif data is None:
        raise SystemExit(f"{name} needs --data FOLDER")
    else:
        raw = data
    preprocessed = folder / "preprocessed"
    run_preprocess(PreprocessSettings(data_path=raw, output_path=preprocessed, dataset=bench.dataset))
    return raw, preprocessed


@dataclass(frozen=True)
class Study:
    """Runs of one benchmark."""

    bench: Bench
    raw: Path
    preprocessed: Path
    folder: Path
    gpu: str
    jobs: int
    split: str

    def root(self, variant: Variant) -> Path:
        """Folder of a row's runs."""
        kind = "ablation" if self.split == "eval" else "runs"
        return self.folder / kind / variant.label.replace(", ", "-").replace(" ", "_")

    def run(self, rows: Sequence[Variant], seeds: Sequence[int]) -> None:
        """Train, predict and score; what is finished is recognised. A failed run is reported and left out."""
        bench = self.bench
        validation = self.split == "eval"
        config = PipelineConfig(
            methods=tuple(
                MethodEntry(
                    name=row.method,
                    log_root=self.root(row),
                    npy_path=self.preprocessed / ("imagesTr" if validation else bench.folder),
                    nii_path=self.raw / bench.images,
                    task=bench.dataset,
                    settings=row.settings,
                    train_settings=row.train_settings,
                )
                for row in rows
            ),
            seeds=tuple(seeds),
            gt_path=self.raw / bench.truth,
            gpu=self.gpu,
            jobs=self.jobs,
            split=self.split,
            inference=PredictOptions(overlap=0.25),
            evaluation=EvaluateOptions(metrics=METRICS),
            aggregation=AggregateOptions(min_seeds=1),
            stages=Stages(training=True),
            training=TrainOptions(
                data_path=self.preprocessed,
                preset="compact",
                labeled_count=bench.labelled,
                settings={
                    "max_epochs": (epochs := max(1, bench.steps // 50)),
                    "steps_per_epoch": min(50, bench.steps),
                    "validation": {"every_epochs": epochs},
                    **bench.settings,
                },
            ),
        )
        try:
            run_experiment(config, shlex.join(["python", *sys.argv]))
        except StepsFailed as error:
            print(error)

    def manifests(self, row: Variant) -> list[dict[str, Any]]:
        """What the finished trainings of a row recorded."""
        return [json.loads(path.read_text()) for path in sorted(self.root(row).glob("seed_*/train_manifest.json"))]

    def chosen(self, rows: Sequence[Variant]) -> list[Variant]:
        """The rows that get all seeds: the best on validation scans, and ours."""

        def validation_dice(row: Variant) -> float:
            return max((m["best_validation_dice"] or 0.0 for m in self.manifests(row)[:1]), default=0.0)

        rivals = sorted((row for row in rows if row.method not in OURS), key=validation_dice, reverse=True)
        return [row for row in rows if row in rivals[:BEST] or row.method in OURS]

    def table(self, rows: Sequence[Variant]) -> str:
        """One row per method, best mean Dice first."""
        found = [(row, self.root(row)) for row in rows if list(self.root(row).glob("seed_*/result.csv"))]
        summaries = summaries_of([root for _, root in found], AggregateOptions(min_seeds=1))
        pairs = sorted(
            zip([row for row, _ in found], summaries, strict=True),
            key=lambda pair: pair[1].metrics["Dice"].foreground.mean,
            reverse=True,
        )
        tail = bool(summaries[0].tail_classes)
        head = ["", "networks", "seeds", "Dice (%)", *(["tail Dice (%)", "tail recall (%)"] if tail else [])]
        head += ["missed organs per scan (%)", "ASSD (mm)", "validation Dice (%)", "CPU minutes"]
        lines = [f"| {' | '.join(head)} |", "|---|---" + "|---:" * (len(head) - 2) + "|"]
        lines += [f"| {' | '.join(self.cells(row, summary, tail))} |" for row, summary in pairs]
        first = summaries[0]
        bench = self.bench
        note = (
            f"{len(first.cases)} {'validation' if self.split == 'eval' else 'test'} scans, {bench.labelled} labelled,"
            f" {bench.steps} steps, best model = last model; mean ± sample standard deviation over seeds."
            f" {platform.machine()}, {os.cpu_count()} cores, {self.jobs} trainings at a time."
        )
        return "\n".join([*lines, "", note])

    def cells(self, row: Variant, summary: Summary, tail: bool) -> list[str]:
        """The cells of one row."""
        manifests = self.manifests(row)
        dice, recall = summary.metrics["Dice"], summary.metrics["Recall"]
        distance = summary.metrics["ASD"]
        counts = summary.organs["total"]
        present = counts["missed"] + counts["detected"] + counts["misplaced"]
        networks = sorted({manifest["networks"] for manifest in manifests if "networks" in manifest})
        cells = [row.label, ", ".join(networks) or "n/a", str(len(summary.seeds)), shown(dice.foreground, dice.metric)]
        if tail:
            cells += [shown(dice.tail, dice.metric), shown(recall.tail, recall.metric)]
        cells += [f"{100 * counts['missed'] / present:.1f}", shown(distance.foreground, distance.metric)]
        validation = [m["best_validation_dice"] for m in manifests if m["best_validation_dice"] is not None]
        cells.append(f"{100 * sum(validation) / len(validation):.1f}" if validation else "n/a")
        cells.append(f"{sum(m['cpu_seconds'] for m in manifests) / len(manifests) / 60:.1f}")
        return cells


def shown(spread: Spread | None, metric: Metric) -> str:
    """Mean ± standard deviation, with one decimal."""
    if spread is None or spread.mean != spread.mean:
        return "n/a"
    scale = metric.scale
    mean = f"{spread.mean * scale:.1f}"
    return mean if spread.std != spread.std else f"{mean} ± {spread.std * scale:.1f}"


if __name__ == "__main__":
    main()
