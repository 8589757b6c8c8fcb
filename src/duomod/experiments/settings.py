"""Settings of ``duomod pipeline`` and ``duomod demo``, and what an experiment's file says.

The sections of the file are the commands' own models without what the experiment itself knows (method, seed, folders),
so that whatever a command can do, an experiment can do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from duomod.bounds import AtOnce, Count, Seed
from duomod.config import TrainChanges, TrainConfig
from duomod.errors import InputError
from duomod.evaluation.settings import (
    RESULT,
    AggregateOptions,
    AggregateSettings,
    CompareOptions,
    CompareSettings,
    EvaluateOptions,
    EvaluateSettings,
)
from duomod.experiments.executor import executor_settings
from duomod.flags import FIRST_GPU, Flag, Gpu, NumClasses
from duomod.inference.settings import PredictOptions, PredictSettings
from duomod.option_values import merged
from duomod.preprocessing.settings import PreprocessOptions, PreprocessSettings
from duomod.report.settings import ReportOptions, ReportSettings
from duomod.settings import Settings, checked
from duomod.training.settings import TrainOptions, TrainSettings
from duomod.workspace import PREDICTIONS, read_yaml

CHECKPOINT = Path("ckpts") / "best_model.pth"
#: The command that lists the settings of an experiment.
EXPERIMENT_LIST = "duomod settings pipeline"


class PipelineSettings(Settings):
    """Run stages for several methods and seeds. A missing seed is reported and the rest goes on."""

    command: ClassVar[str] = "pipeline"

    config: Annotated[Path, Flag(positional=True)] = Field(description="YAML file; see docs/pipeline.md.")
    dry_run: bool = Field(False, description="Only print the commands.")


class StatusSettings(Settings):
    """Show how far an experiment is: each step's state, progress, best Dice, time left, and why it failed."""

    command: ClassVar[str] = "status"

    config: Annotated[Path, Flag(positional=True)] = Field(description="The experiment's YAML file.")
    once: bool = Field(False, description="Print the table once; otherwise a terminal shows it until all is over.")


class DemoSettings(Settings):
    """Run the whole chain on the built-in phantom: three methods, two seeds each, three labelled scans."""

    command: ClassVar[str] = "demo"

    output: Path = Field(Path("demo"), description="Where everything goes.")
    gpu: Gpu = ""
    #: Nine epochs of the compact preset's 50 steps are what fits into eight minutes on two cores.
    max_epochs: Count = Field(9, description="Shorter or longer training.")
    steps_per_epoch: Count = Field(50, description="Steps of an epoch.")
    cases: int = Field(24, ge=8, le=100_000, description="Scans of the phantom; a quarter of them to test on.")


class Stages(Settings):
    """Which stages run, in this order."""

    preprocessing: bool = Field(False, description="duomod preprocess")
    training: bool = Field(False, description="duomod train, for every method and seed")
    inference: bool = Field(True, description="duomod predict, for every method and seed")
    evaluation: bool = Field(True, description="duomod evaluate, for every method and seed")
    aggregation: bool = Field(True, description="duomod aggregate, for every method")
    comparison: bool = Field(False, description="duomod compare, over all methods")
    report: bool = Field(False, description="duomod report, over all methods")


class MethodEntry(Settings):
    """One method, or one variant of it: its runs are ``log_root/seed_<n>``."""

    name: str = Field(description="Method: duomodnet, cps, supervised ... (duomod methods).")
    log_root: Path = Field(description="Folder of its runs; a variant of a method has its own.")
    npy_path: Path | None = Field(None, description="Preprocessed test cases; without them the scans are predicted.")
    nii_path: Path = Field(description="The scans.")
    task: str | None = Field(None, description="Data set description: a built-in name or a YAML file.")
    settings: dict[str, Any] = Field({}, description="Settings of the method, as --method_set of duomod train.")
    train_settings: TrainChanges = Field({}, description="Training settings on top of those of section training.")
    plugin: Path | None = Field(None, description="Python file with the method, if it is your own.")

    contents: ClassVar[Mapping[str, type[BaseModel]]] = {"train_settings": TrainConfig}

    @property
    def title(self) -> str:
        """What messages call it: the method, and the variant's folder where that has another name."""
        return self.name if self.log_root.name == self.name else f"{self.name} ({self.log_root.name})"

    def run(self, seed: int) -> Path:
        """Folder of the run with a seed."""
        return self.log_root / f"seed_{seed}"

    @property
    def aggregated(self) -> Path:
        """Its metrics of every case, averaged over seeds."""
        return self.log_root / f"{self.name}_aggregated_metrics.csv"

    @property
    def summary(self) -> Path:
        """Its summary as text."""
        return self.log_root / f"{self.name}_summary_results.txt"


def _named(executor: Any) -> Any:
    if isinstance(executor, str):
        return {"name": executor}
    return {"name": "local", **executor} if isinstance(executor, Mapping) else executor


class PipelineConfig(Settings):
    """An experiment. Paths are relative to the working directory, as in the original shell script."""

    methods: tuple[MethodEntry, ...] = Field(min_length=1, description="What is run.")
    seeds: tuple[Seed, ...] = Field((0, 1, 2), min_length=1, description="Every method is trained once with each.")
    gt_path: Path = Field(description="True label maps.")
    num_classes: NumClasses = None
    gpu: Gpu = FIRST_GPU
    stages: Stages = Stages()
    jobs: AtOnce = Field(
        1, description="Steps (trainings, predictions ...) at the same time, each with its share of the cores."
    )
    executor: Annotated[dict[str, Any], BeforeValidator(_named)] = Field(
        {"name": "local"},
        description="What runs the steps, and its settings: {name: local, gpus: [0, 1]}; local, slurm, ray.",
    )
    steps_path: Path | None = Field(
        None, description="Folder of the steps' states and logs; default: .steps beside the first method's folder."
    )
    split: str | None = Field(None, description="With npy_path: predict and score only the cases of this list.")
    preprocessing: PreprocessOptions | None = Field(None, description="As duomod preprocess.")
    training: TrainOptions | None = Field(None, description="As duomod train, the same for every method.")
    inference: PredictOptions = Field(PredictOptions(), description="As duomod predict.")
    evaluation: EvaluateOptions = Field(EvaluateOptions(), description="As duomod evaluate.")
    aggregation: AggregateOptions = Field(AggregateOptions(), description="As duomod aggregate.")
    comparison: CompareOptions | None = Field(None, description="As duomod compare.")
    report: ReportOptions = Field(ReportOptions(), description="As duomod report.")

    shortcuts: ClassVar[Mapping[str, str]] = {
        "overlap": "inference.overlap",
        "workers": "evaluation.workers",
        "metrics": "evaluation.metrics",
        "min_seeds": "aggregation.min_seeds",
    }

    @property
    def steps(self) -> Path:
        """Folder of the steps' states and logs."""
        return self.steps_path or self.methods[0].log_root.parent / ".steps"

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, data: Any) -> Any:
        """Move what was written by its shortcut to where it belongs; a section's own value wins."""
        if not isinstance(data, Mapping):
            return data
        result = {key: value for key, value in data.items() if key not in cls.shortcuts}
        for name, target in cls.shortcuts.items():
            section, key = target.split(".")
            there = result.get(section) or {}
            if name in data and isinstance(there, Mapping) and key not in there:
                result[section] = {**there, key: data[name]}
        return result

    @model_validator(mode="after")
    def _complete(self) -> Self:
        problems = [
            f"{stage} is on, but the section '{stage}' is missing"
            for stage in ("preprocessing", "training", "comparison")
            if getattr(self.stages, stage) and getattr(self, stage) is None
        ]
        try:
            _, executor = executor_settings(self.executor)
        except InputError as error:
            problems += error.problems
        else:
            shares = self.executor["name"] != "local" or getattr(executor, "gpus", ())
            if shares and self.gpu not in ("", FIRST_GPU):
                problems.append(f"gpu '{self.gpu}': the executor gives each step its GPU; write 0, or \"\" for the CPU")
        roots = [method.log_root for method in self.methods]
        problems += [
            f"log_root {root} is listed twice; give every variant of a method a folder of its own"
            for root in sorted({root for root in roots if roots.count(root) > 1})
        ]
        problems += [
            f"seed {seed} is listed twice; every seed has one folder"
            for seed in sorted({seed for seed in self.seeds if self.seeds.count(seed) > 1})
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def preprocess_settings(self) -> PreprocessSettings:
        """The preprocessing of the experiment's data."""
        section = _given(self.preprocessing)
        task = next((entry.task for entry in self.methods if entry.task), None)
        return PreprocessSettings(**{**section, "dataset": section["dataset"] or task}, num_classes=self.num_classes)

    def train_settings(self, entry: MethodEntry, seed: int) -> TrainSettings:
        """One training; it goes on where it was interrupted."""
        section = _given(self.training)
        return TrainSettings(
            **{**section, "settings": merged(section["settings"], entry.train_settings)},
            model=entry.name,
            output_dir=entry.run(seed),
            seed=seed,
            gpu=self.gpu,
            num_classes=self.num_classes,
            method_settings=entry.settings,
            plugin=entry.plugin,
            resume=True,
        )

    def predict_settings(self, entry: MethodEntry, seed: int) -> PredictSettings:
        """The prediction of one run: of preprocessed cases where the method names them, else of the scans."""
        stored = entry.npy_path is not None
        return PredictSettings(
            **_given(self.inference),
            model_path=entry.run(seed) / CHECKPOINT,
            output_path=entry.run(seed) / PREDICTIONS,
            npy_path=entry.npy_path,
            original_nii_path=entry.nii_path if stored else None,
            input_path=None if stored else entry.nii_path,
            gpu=self.gpu,
            method=entry.name,
            plugin=entry.plugin,
            dataset=entry.task,
            num_classes=self.num_classes,
            split=self.split if stored else None,
        )

    def evaluate_settings(self, entry: MethodEntry, seed: int) -> EvaluateSettings:
        """The evaluation of one run, of the cases of the experiment's split where it has one."""
        section = _given(self.evaluation)
        if self.split is not None and entry.npy_path is not None and section["cases"] is None:
            section["cases"] = entry.npy_path.parent / "splits" / f"{self.split}.txt"
        return EvaluateSettings(
            **section,
            pred_path=entry.run(seed) / PREDICTIONS,
            gt_path=self.gt_path,
            output_csv=entry.run(seed) / f"{RESULT}.csv",
            num_classes=self.num_classes,
            dataset=entry.task,
        )

    def aggregate_settings(self, entry: MethodEntry) -> AggregateSettings:
        """The averages of one method; the tables it is also written to lie in the method's folder."""
        section = _given(self.aggregation)
        section["table"] = tuple(entry.log_root / path for path in section["table"])
        return AggregateSettings(
            **{**section, "dataset": section["dataset"] or entry.task},
            method_base_dir=entry.log_root,
            aggregated_csv_output=entry.aggregated,
            summary_output=entry.summary,
        )

    def compare_settings(self) -> CompareSettings:
        """The comparison of all methods."""
        return CompareSettings(**_given(self.comparison), tables=tuple(entry.aggregated for entry in self.methods))

    def report_settings(self) -> ReportSettings:
        """The report on all methods."""
        return ReportSettings(**_given(self.report), runs=tuple(entry.log_root for entry in self.methods))


def _given(section: Settings | None) -> dict[str, Any]:
    """What a section of the file says, by field."""
    if section is None:
        raise InputError("this stage needs its section in the experiment's file")
    return dict(section)


def load_pipeline(path: Path) -> PipelineConfig:
    """Read an experiment's YAML file.

    Raises:
        InputError: missing, not YAML, or lists every wrong field.
    """
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected fields such as methods, seeds and gt_path")
    return checked(PipelineConfig, data, source=f"{path}: ", see=EXPERIMENT_LIST)
