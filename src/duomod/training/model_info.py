"""What a checkpoint says of its model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from duomod.config import NetworkConfig
from duomod.datasets.labels import MOST_CLASSES
from duomod.datasets.spec import DatasetSpec, Modality
from duomod.errors import InputError
from duomod.networks.vnet_published import is_vnet
from duomod.settings import checked
from duomod.training.stock_predictor import StockPredictor
from duomod.workspace import parse_json

INFO_KEY = "duomod"


#: Largest window in voxels along an axis, and in all (a cube of 512): more is no model's, and no memory holds it.
_LONGEST, _MOST_VOXELS = 2048, 512**3
#: mm: of scans from microscopes to surveys.
_SPACINGS = (0.001, 1000.0)

Length = Annotated[int, Field(ge=1, le=_LONGEST)]


class ModelInfo(BaseModel):
    """What a checkpoint says of its model; enough to preprocess a new scan and predict it.

    ``networks`` says in words which networks the method built. A checkpoint without it was made when some methods
    trained V-Nets whatever network was asked for. ``modalities`` are those of the cases it was trained on; a checkpoint
    without it may have seen all of its data set's. ``plugin`` names the file the method or network is from (older
    checkpoints: its path), for messages only: it is never imported. ``predictor`` says how to predict without it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = Field(min_length=1, max_length=200)
    method_settings: dict[str, Any] = {}
    network: NetworkConfig
    networks: str = ""
    in_channels: int = Field(1, ge=1, le=256)
    num_classes: int = Field(ge=2, le=MOST_CLASSES)
    patch: tuple[Length, Length, Length]
    spec: DatasetSpec | None = None
    modalities: tuple[Modality, ...] = ()
    plugin: str | None = None
    plugin_sha256: str = ""
    predictor: StockPredictor | None = None
    step: int | None = Field(None, ge=0)
    validation_dice: float | None = Field(None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if math.prod(self.patch) > _MOST_VOXELS:
            raise ValueError(f"patch: {' x '.join(map(str, self.patch))} voxels are more than {_MOST_VOXELS:,}")
        if self.spec is None:
            return self
        if self.spec.num_classes != self.num_classes:
            raise ValueError(f"num_classes: {self.num_classes}, but its data set has {self.spec.num_classes}")
        low, high = _SPACINGS
        if not all(low <= mm <= high for mm in self.spec.spacing):
            raise ValueError(f"spacing: must be from {low:g} to {high:g} mm")
        if not all(map(math.isfinite, self.spec.window)):
            raise ValueError("window: must be finite")
        return self


def stated_info(path: Path, content: Mapping[str, Any]) -> ModelInfo:
    """The info that lies in a checkpoint.

    Raises:
        InputError: it is damaged.
    """
    damaged = f"{path}: its description of the model is damaged"
    if not isinstance(content[INFO_KEY], str):
        raise InputError(f"{damaged} (not a text); take another copy of the file")
    info = checked(ModelInfo, parse_json(content[INFO_KEY], damaged), source=f"{damaged}: ")
    if not info.networks and any(is_vnet(state) for state in content.values() if isinstance(state, dict)):
        return info.model_copy(update={"network": info.network.model_copy(update={"name": "vnet"})})
    return info
