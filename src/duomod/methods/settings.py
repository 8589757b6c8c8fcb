"""Settings of methods: what all of them have. Each method adds its own in its file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from duomod.config import AbsentClass, CountsFrom, WeightRule
from duomod.flags import Flag
from duomod.sampling.settings import ViewConfig, usual_view
from duomod.settings import Settings, checked

Preset = Literal["default", "reference"]


class MethodConfig(Settings):
    """Settings every method has. A method's own settings are fields of its subclass; the values are the paper's."""

    consistency_weight: float = Field(0.1, ge=0, description="largest weight of the unsupervised term")
    rampup: float = Field(0.3, ge=0, description="length of its ramp-up; below 1: a share of training, else epochs")
    absent_class: AbsentClass = Field(
        "penalise",
        description="Dice of a class that a batch does not have: any prediction counts as wrong, or nothing does",
    )
    class_weights: WeightRule = Field(
        "none", description="weights of the supervised losses by class frequency: rlm (DuoMod-Net's) or dhc (DistDW)"
    )

    counts_from: CountsFrom = Field(
        "volumes", description="labelled data whose class counts a method starts from: all, the first four, or crops"
    )

    #: Fields that differ from the class's defaults under ``--preset reference``.
    reference: ClassVar[Mapping[str, Any]] = {"rampup": 150, "absent_class": "constant"}
    #: Training settings of ``--preset reference`` that the method's published code has for itself.
    reference_training: ClassVar[Mapping[str, Any]] = {}

    def view(self, name: str) -> ViewConfig:
        """How a view is made that the method declares; by default as :func:`usual_view` says.

        Raises:
            ValueError: the method declares a view that nobody describes.
        """
        return usual_view(name)

    @classmethod
    def preset(cls, name: Preset, overrides: Mapping[str, Any] | None = None, see: str = "") -> Self:
        """Return the settings of a preset, with single fields replaced.

        ``see`` is the command that lists them, for the message about an unknown one.

        Raises:
            InputError: lists every unknown or invalid field by name.
        """
        values = {**(cls.reference if name == "reference" else {}), **(overrides or {})}
        return checked(cls, values, source="method setting ", see=see)


class MethodsSettings(Settings):
    """List all methods: paper, year, network, parameters, memory and time of a step relative to supervised."""

    command: ClassVar[str] = "methods"

    name: Annotated[str | None, Flag(positional=True)] = Field(
        None, description="Show this method only: equations, network, cost, settings."
    )


class CheckMethodSettings(Settings):
    """Run the conformance suite over a method: gradients, saving, shapes, determinism, learning, leaks."""

    command: ClassVar[str] = "check-method"

    name: Annotated[str | None, Flag(positional=True)] = Field(
        None, description="Name of a method, or path of a Python file with one."
    )
    plugin: Path | None = Field(None, description="Python file with a method of your own.")

    @model_validator(mode="after")
    def _one_method(self) -> Self:
        if (self.name is None) == (self.plugin is None):
            raise ValueError("give the name of a method, or a Python file with one (--plugin)")
        return self
