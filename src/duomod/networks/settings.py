"""Settings of the command that checks a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from duomod.flags import Flag
from duomod.settings import Settings


class CheckNetworkSettings(Settings):
    """Run the conformance suite over a network: sizes, channels, encoder and decoder, gradients, saving."""

    command: ClassVar[str] = "check-network"

    name: Annotated[str | None, Flag(positional=True)] = Field(
        None, description="Name of a network, or path of a Python file with one."
    )
    plugin: Path | None = Field(None, description="Python file with a network of your own.")

    @model_validator(mode="after")
    def _one_network(self) -> Self:
        if (self.name is None) == (self.plugin is None):
            raise ValueError("give the name of a network, or a Python file with one (--plugin)")
        return self
