"""Settings of ``duomod phantom``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from duomod.bounds import Seed
from duomod.flags import WORKERS, Flag, Workers
from duomod.settings import Settings

Preset = Literal["amos", "tiny"]


class PhantomSettings(Settings):
    """Write the built-in phantom: abdominal CT-like scans with AMOS's organs."""

    command: ClassVar[str] = "phantom"

    out: Annotated[Path, Flag(positional=True)] = Field(description="Where the data set goes (AMOS layout).")
    cases: int = Field(12, ge=1, le=100_000, description="Labelled cases in all.")
    seed: Seed = Field(0, description="Seed of the population.")
    preset: Preset = Field("amos", description="amos (15 organs) or tiny.")
    unlabeled: int = Field(0, ge=0, le=100_000, description="Further training scans without labels.")
    workers: Workers = WORKERS

    @model_validator(mode="after")
    def _ids_suffice(self) -> Self:
        if self.preset == "amos" and self.cases + self.unlabeled > 499:
            raise ValueError("preset amos holds at most 499 cases, because AMOS ids of 500 and above mean MR")
        return self
