"""Settings of ``duomod preprocess``."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from duomod.bounds import Seed, Spacing
from duomod.flags import WORKERS, Dataset, NumClasses, Workers
from duomod.settings import Settings


class PreprocessOptions(Settings):
    """What an experiment's file says about preprocessing."""

    data_path: Path = Field(description="Raw data set (imagesTr, labelsTr, ... dataset.json).")
    output_path: Path = Field(description="Where the preprocessed data set goes.")
    dataset: Dataset = None
    workers: Workers = WORKERS
    seed: Seed = Field(0, description="Seed of the splits.")
    spacing: tuple[Spacing, Spacing, Spacing] | None = Field(
        None, description="Voxel size in mm as x,y,z instead of the description's."
    )
    accept_intensities: bool = Field(False, description="Take scans whose voxels seem to be no HU (CT), or no MR.")


class PreprocessSettings(PreprocessOptions):
    """Check a raw data set, bring every scan to one orientation and spacing, and make the splits. Can be run again."""

    command: ClassVar[str] = "preprocess"

    num_classes: NumClasses = None
