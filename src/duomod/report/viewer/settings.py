"""Settings of ``duomod view``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from duomod.flags import Anonymous, Dataset, Flag
from duomod.settings import Settings


class ViewSettings(Settings):
    """Look at a scan with truth, predictions and errors, in three planes and in 3D, in the browser."""

    command: ClassVar[str] = "view"

    case: Annotated[Path, Flag(positional=True)] = Field(description="The scan: a NIfTI file or a DICOM folder.")
    pred: tuple[Path, ...] = Field((), description="Predicted label map; several times.")
    gt: Path | None = Field(None, description="True label map.")
    dataset: Dataset = None
    port: int = Field(0, ge=0, le=65535, description="Of the server; 0: a free one.")
    browser: bool = Field(True, description="Open the page.")
    anonymous: Anonymous = False
    output: Annotated[Path | None, Flag("--output", "-o")] = Field(
        None, description="Write the page into this folder instead of serving it."
    )
