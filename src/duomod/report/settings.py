"""Settings of ``duomod report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from duomod.flags import Anonymous, Dataset, Flag
from duomod.settings import Settings


class ReportOptions(Settings):
    """What an experiment's file says about its report."""

    output: Annotated[Path, Flag("--output", "-o")] = Field(Path("report"), description="Folder of the report.")
    images: Path | None = Field(None, description="Scans; default: those that the predictions were made from.")
    truth: Path | None = Field(None, description="True label maps; default: those of the evaluation.")
    dataset: Dataset = None
    baseline: str | None = Field(None, description="Compare with this method; default: supervised, else the first.")
    worst: int = Field(5, ge=0, le=100_000, description="Worst cases pictured per method.")
    viewer: bool = Field(True, description="A 2D/3D viewer of every case.")
    all_seeds: bool = Field(False, description="The viewer shows all seeds, not only the first of each method.")
    title: str | None = Field(None, description="Of the page.")
    anonymous: Anonymous = False


class ReportSettings(ReportOptions):
    """Write a report that opens offline: tables, charts, tests, worst cases, settings, and a viewer of every case."""

    command: ClassVar[str] = "report"

    runs: Annotated[tuple[Path, ...], Flag(positional=True)] = Field(
        min_length=1, description="Folders of methods (with seed_*), or evaluated folders."
    )
