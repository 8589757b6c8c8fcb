"""Settings of ``duomod predict``, and how a volume is gone through wherever one is predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from duomod.bounds import Many, Voxels
from duomod.config import Precision
from duomod.datasets.spec import Modality
from duomod.flags import FIRST_GPU, Dataset, Flag, Gpu, NumClasses
from duomod.settings import Settings

Blending = Literal["gaussian", "uniform"]


class WindowSettings(Settings):
    """How a window moves over a volume, and in which number format."""

    overlap: float = Field(0.5, ge=0, lt=1, description="Overlap of neighbouring windows.")
    blending: Blending = Field("gaussian", description="Window weights.")
    batch_size: Many = Field(1, description="Windows per forward pass.")
    precision: Precision = Field("auto", description="Number format; auto: the fastest that the device has.")
    patch: tuple[Voxels, Voxels, Voxels] | None = Field(
        None, description="Window in voxels as z,y,x; default: the checkpoint's."
    )


class PredictOptions(WindowSettings):
    """What an experiment's file says about all its predictions."""

    cases: Path | None = Field(
        None, description="With --npy_path: list of the cases to predict, one id a line, e.g. splits/test.txt."
    )
    modality: Modality | None = Field(
        None, description="With --input: the modality of all scans. Default: told by header, model or voxels, or asked."
    )
    accept_intensities: bool = Field(
        False, description="With --input: take scans whose voxels seem to be no HU (CT), or no MR."
    )
    series: str | None = Field(
        None, description="With --input: the DICOM series to take, by its UID, number or description."
    )
    strict: bool = Field(False, description="Check all scans before anything is written; one that is broken stops all.")
    overwrite: bool = Field(
        False, description="Remove label maps of another model, or made with other settings, from the output folder."
    )
    save_probabilities: bool = Field(False, description="Also write probabilities/<case>.npz.")
    resume: bool = Field(True, description="Keep results that are up to date.")


class PredictSettings(PredictOptions):
    """Predict label maps on exactly the grid of the input scans."""

    command: ClassVar[str] = "predict"

    model_path: Annotated[Path, Flag("--model_path", "--model")] = Field(description="Checkpoint.")
    output_path: Annotated[Path, Flag("--output_path", "--output")] = Field(description="Folder of the label maps.")
    input_path: Annotated[Path | None, Flag("--input")] = Field(
        None, description="A scan, a folder of scans, DICOM series in folders at any depth, or a zip archive of these."
    )
    npy_path: Path | None = Field(None, description="Preprocessed cases instead of --input.")
    original_nii_path: Path | None = Field(None, description="With --npy_path: the scans, whose grid is returned to.")
    gpu: Gpu = FIRST_GPU
    method: Annotated[str | None, Flag("--exp")] = Field(None, description="Method of the checkpoint; checked.")
    dataset: Dataset = None
    num_classes: NumClasses = None
    plugin: Path | None = Field(
        None, description="Python file of the plug-in it was trained with, where it cannot do without."
    )
    split: str | None = Field(None, description="With --npy_path: only the cases of this list, e.g. test or eval.")

    @model_validator(mode="after")
    def _one_input(self) -> Self:
        if (self.npy_path is None) == (self.input_path is None):
            raise ValueError("give either --input (scans) or --npy_path (preprocessed cases)")
        if self.input_path is not None and (self.split or self.cases):
            raise ValueError("--split, --cases: need --npy_path; with --input, the scans given are predicted")
        return self
