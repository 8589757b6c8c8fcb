"""What a checkpoint says of its model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from duomod.config import NetworkConfig
from duomod.datasets.spec import DatasetSpec
from duomod.errors import InputError
from duomod.networks.vnet_published import is_vnet
from duomod.settings import checked
from duomod.workspace import parse_json

INFO_KEY = "duomod"


class ModelInfo(BaseModel):
    """What a checkpoint says of its model; enough to preprocess a new scan and predict it.

    ``networks`` says in words which networks the method built. A checkpoint without it was made when some methods
    trained V-Nets whatever network was asked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    method_settings: dict[str, Any] = {}
    network: NetworkConfig
    networks: str = ""
    in_channels: int = 1
    num_classes: int
    patch: tuple[int, int, int]
    spec: DatasetSpec | None = None
    plugin: str | None = None
    step: int | None = None
    validation_dice: float | None = None


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
