"""Published checkpoints: they hold weights and nothing that says of what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duomod.datasets.spec import DatasetSpec
from duomod.errors import InputError
from duomod.networks.vnet_published import published_as_vnet, settings_from_state
from duomod.settings import checked
from duomod.training.model_info import ModelInfo


@dataclass(frozen=True)
class Published:
    """How a checkpoint without our info is to be read: its method, and the data set it was trained on."""

    method: str | None = None
    spec: DatasetSpec | None = None


def inferred_info(path: Path, content: Mapping[str, Any], published: Published) -> ModelInfo:
    """Read off the weights of a published checkpoint what they are.

    Raises:
        InputError: they are not a known network's.
    """
    try:
        guess, state = published_as_vnet({key: value for key, value in content.items() if isinstance(value, dict)})
        settings = settings_from_state(state)
    except (LookupError, StopIteration, AttributeError, TypeError, ValueError, RuntimeError):
        raise InputError(f"{path}: the weights are not those of a V-Net that duomod knows") from None
    facts = {
        "method": published.method or guess,
        "network": {name: value for name, value in settings.items() if name not in ("num_classes", "in_channels")},
        "in_channels": settings["in_channels"],
        "num_classes": settings["num_classes"],
        "patch": published.spec.patch if published.spec else DatasetSpec.model_fields["patch"].default,
    }
    # Whether the data set given has as many classes is the caller's to say.
    info = checked(ModelInfo, facts, source=f"{path}: the weights are not those of a V-Net that duomod knows: ")
    return info.model_copy(update={"spec": published.spec})
