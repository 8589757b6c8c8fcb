"""Settings of a training run: typed, frozen, checked. The one place for every default; presets are data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from duomod.bounds import Count, Many, Voxels
from duomod.errors import InputError, unknown_name
from duomod.option_values import merged
from duomod.sampling.settings import AugmentConfig as AugmentConfig
from duomod.sampling.settings import CountsFrom as CountsFrom
from duomod.sampling.settings import SamplingConfig as SamplingConfig
from duomod.settings import Settings, checked

#: The command that lists what is in this file.
TRAINING_LIST = "duomod settings train"

PresetName = Literal["default", "reference", "compact"]
#: What Dice does with a class that neither truth nor prediction of a batch has.
AbsentClass = Literal["constant", "penalise"]
#: Class weights that any method can switch on.
WeightRule = Literal["none", "rlm", "dhc"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


class NetworkConfig(Settings):
    """The network; ``name`` is looked up in ``duomod.networks.registry``."""

    name: str = Field("vnet", description="which network; the default is the paper's V-Net")
    filters: Many = Field(32, description="channels at full resolution")
    norm: Literal["batch", "group", "instance", "none"] = Field("batch", description="normalisation layers")
    dropout_bottleneck: float = Field(0.5, ge=0, lt=1, description="dropout at the lowest resolution")
    dropout_last: float = Field(0.5, ge=0, lt=1, description="dropout before the last layer")
    levels: int = Field(5, ge=2, le=5, description="resolutions")


class OptimConfig(Settings):
    """Optimizer and learning-rate schedule. Schedules are functions of the step alone."""

    name: Literal["sgd", "adamw"] = Field("sgd", description="which optimizer")
    base_lr: float = Field(0.03, gt=0, description="largest learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD only; with Nesterov")
    weight_decay: float = Field(3e-5, ge=0, description="pull of the weights towards zero")
    schedule: Literal["poly", "poly_late", "one_cycle"] = Field(
        "poly", description="poly: per step from the first; poly_late: per epoch, one epoch behind (the reference)"
    )
    clip_gradient: float | None = Field(None, gt=0, description="largest norm of all gradients together")


class ValidationConfig(Settings):
    """Validation on the eval cases, and early stopping."""

    every_epochs: Count = Field(10, description="epochs between two validations")
    dense_from_epoch: int | None = Field(
        None, ge=0, le=10**9, description="from this epoch on, validate after every epoch"
    )
    overlap: float = Field(0.25, ge=0, lt=1, description="overlap of neighbouring windows, weighted uniformly")
    patience: Count | None = Field(50, description="stop after this many validations without improvement")
    both_empty: Literal["excluded", "one"] = Field(
        "excluded", description="Dice of a class that neither truth nor prediction has: left out of the mean, or 1"
    )


class TrainConfig(Settings):
    """Everything that decides a training run's numbers, besides data, split, method and its own settings."""

    max_epochs: Count = Field(500, description="epochs")
    final_epoch: bool = Field(False, description="one more epoch after max_epochs, as the published loops run")
    steps_per_epoch: Count | None = Field(None, description="none: one pass over the unlabelled cases")
    patch: tuple[Voxels, Voxels, Voxels] | None = Field(
        None, description="patch in voxels, z y x; none: the data set's"
    )
    precision: Precision = Field("auto", description="number format; auto: the fastest that the device has")
    network: NetworkConfig = NetworkConfig()
    optim: OptimConfig = OptimConfig()
    sampling: SamplingConfig = SamplingConfig()
    augment: AugmentConfig = AugmentConfig()
    validation: ValidationConfig = ValidationConfig()


#: What a preset changes (docs/methods/README.md, Presets). ``reference``: the published code, quirks included.
#: ``compact``: networks and runs small enough for a CPU; chosen on the tiny phantom's validation cases, the same for
#: every method.
PRESETS: Mapping[PresetName, Mapping[str, Any]] = {
    "default": {},
    "reference": {
        "final_epoch": True,
        "optim": {"schedule": "poly_late"},
        "sampling": {
            "labelled": "foreground",
            "unlabelled": "uniform",
            "labelled_replacement": True,
            "small_axis_margin": 3,
        },
        "augment": {"transforms": [{"name": "flip_x", "labels": "plain"}, "flip_y"], "draws": "crop"},
        "validation": {"dense_from_epoch": 150, "both_empty": "one"},
    },
    "compact": {
        "max_epochs": 24,
        "steps_per_epoch": 50,
        "sampling": {"batch_unlabeled": 1, "jitter": 1.0},
        "network": {
            "name": "unet",
            "filters": 8,
            "norm": "instance",
            "dropout_bottleneck": 0.0,
            "dropout_last": 0.0,
            "levels": 4,
        },
        "optim": {
            "name": "adamw",
            "base_lr": 2e-2,
            "weight_decay": 1e-2,
            "schedule": "one_cycle",
            "clip_gradient": 12.0,
        },
        "augment": {
            "transforms": [
                {"name": "affine", "probability": 0.3, "rotate_degrees": 10.0, "scale": 0.1},
                {"name": "contrast", "amount": 0.09},
                {"name": "brightness", "amount": 0.045},
                {"name": "gamma", "amount": 0.15},
                {"name": "gaussian_noise", "probability": 0.5, "sigma": 0.015},
            ]
        },
        "validation": {"every_epochs": 4, "patience": None},
    },
}


def train_config(preset: str, changes: Mapping[str, Any] | None = None) -> TrainConfig:
    """Return a preset's settings with single values replaced (nested: ``{"optim": {"base_lr": 0.01}}``).

    Raises:
        InputError: unknown preset, or lists every unknown or invalid setting by name.
    """
    if preset not in PRESETS:
        raise InputError(unknown_name("preset", preset, PRESETS))
    values = merged(PRESETS[preset], changes or {})  # type: ignore[index]
    return checked(TrainConfig, values, source="setting ", see=TRAINING_LIST)


def _known_settings(changes: dict[str, Any]) -> dict[str, Any]:
    TrainConfig.model_validate(changes)
    return changes


#: Training settings to replace, nested; they are checked, but stay what was written, so that a preset shows through.
TrainChanges = Annotated[dict[str, Any], AfterValidator(_known_settings)]
