"""Settings of ``duomod train``: the run. What decides its numbers is in :class:`duomod.config.TrainConfig`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field

from duomod.bounds import Count, Seed
from duomod.config import PresetName, TrainChanges, TrainConfig
from duomod.flags import FIRST_GPU, Flag, Gpu, NumClasses
from duomod.methods.settings import MethodConfig
from duomod.settings import Settings

#: What happens at a step whose loss or gradient is not a number: the training ends, or the step is left out.
OnNan = Literal["stop", "skip"]


class TrainOptions(Settings):
    """What an experiment's file says about all its trainings."""

    data_path: Path = Field(description="Preprocessed data set.")
    preset: PresetName = Field(
        "default", description="default; reference (the published code, quirks included); compact (small, for CPUs)."
    )
    labeled_ratio: float | None = Field(
        None, gt=0, le=100, description="Per cent of training cases that are labelled: 2, 5, 10, 20 ..."
    )
    labeled_count: Count | None = Field(None, description="Number of labelled cases.")
    split: str | None = Field(None, description="Split by name, e.g. labeled_5p.")
    split_seed: Seed = Field(0, description="Seed of a split that has to be made.")
    settings: Annotated[TrainChanges, Flag("--set")] = Field(
        {}, description="A training setting, e.g. --set optim.weight_decay=1e-4."
    )
    on_nan: OnNan = Field(
        "stop",
        description="A step whose loss or gradient is not a number: stop (the last good state stays), or skip it"
        " (it is counted; more than 20 in a row stop).",
    )
    overwrite: bool = Field(False, description="Start anew in a folder that holds a run.")

    contents: ClassVar[Mapping[str, type[BaseModel]]] = {"settings": TrainConfig}


class TrainSettings(TrainOptions):
    """Train one model with one seed. Prints the path of the best checkpoint; ckpts/last.pth is the last."""

    command: ClassVar[str] = "train"

    model: str = Field(description="Method: duomodnet, cps, supervised ... (duomod methods).")
    output_dir: Path = Field(description="Run folder.")
    seed: Seed = Field(0, description="Seed of weights, crops and augmentation.")
    gpu: Gpu = FIRST_GPU
    num_classes: NumClasses = None
    method_settings: Annotated[dict[str, Any], Flag("--method_set")] = Field(
        {}, description="A setting of the method, e.g. --method_set rlm_floor=0.1."
    )
    plugin: Path | None = Field(None, description="Python file with a method of your own.")
    resume: bool = Field(False, description="Go on from the last checkpoint.")

    shortcuts: ClassVar[Mapping[str, str]] = {
        "--max_epochs": "settings.max_epochs",
        "--steps_per_epoch": "settings.steps_per_epoch",
        "--batch_size": "settings.sampling.batch",
        "--patch": "settings.patch",
        "--base_lr": "settings.optim.base_lr",
        "--precision": "settings.precision",
        "--network": "settings.network.name",
        "--sampling": "settings.sampling.labelled",
        "--class_weights": "method_settings.class_weights",
    }
    contents: ClassVar[Mapping[str, type[BaseModel]]] = {**TrainOptions.contents, "method_settings": MethodConfig}
