"""Checkpoints: plain tensors and one JSON string. Published ones, without the JSON, load too; pickled objects never."""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from duomod.config import NetworkConfig
from duomod.datasets.spec import DatasetSpec
from duomod.errors import InputError
from duomod.methods.base import Method, MethodContext
from duomod.methods.registry import load_method, load_plugin
from duomod.networks.registry import build_network, published_as_vnet
from duomod.networks.vnet import initialise, settings_from_state
from duomod.settings import checked
from duomod.workspace import atomic_path

INFO_KEY = "duomod"
RESUME_KEY = "resume"


class ModelInfo(BaseModel):
    """What a checkpoint says of its model; enough to preprocess a new scan and predict it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    method_settings: dict[str, Any] = {}
    network: NetworkConfig
    num_classes: int
    patch: tuple[int, int, int]
    spec: DatasetSpec | None = None
    plugin: str | None = None
    step: int | None = None
    validation_dice: float | None = None


def network_builder(network: NetworkConfig, num_classes: int) -> Callable[..., Any]:
    """Return ``MethodContext.build_network`` for a network configuration."""

    def build(
        init: Literal["kaiming", "xavier", "default"] = "default", *, in_channels: int = 1, kind: str | None = None
    ) -> Any:
        config = network.model_copy(update={"name": kind}) if kind else network
        return initialise(build_network(config, in_channels, num_classes), init)

    return build


def build_method(info: ModelInfo, class_counts: Tensor | None = None) -> Method:
    """Build the method a :class:`ModelInfo` describes, with fresh weights."""
    cls = load_plugin(Path(info.plugin)) if info.plugin else load_method(info.method)
    counts = torch.ones(info.num_classes) if class_counts is None else class_counts
    context = MethodContext(info.num_classes, counts, network_builder(info.network, info.num_classes))
    return cls(cls.Config.preset("default", info.method_settings), context)


def save_checkpoint(path: Path, method: Method, info: ModelInfo, resume: dict[str, Any] | None = None) -> None:
    """Write a checkpoint atomically: the networks under their published keys, the info, and what resuming needs."""
    content: dict[str, Any] = {key: module.state_dict() for key, module in method.published_modules().items()}
    content[INFO_KEY] = info.model_dump_json()
    if resume is not None:
        content[RESUME_KEY] = resume
    # Through memory: torch turns a full disk into an internal error that says nothing of it.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint file to the CPU without running any code in it.

    Raises:
        InputError: missing, not a checkpoint, truncated, or holding a pickled object.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own message says what is wrong with the file
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path) or "GLOBAL" in str(error) or "global" in str(error):
            raise InputError(
                f"{path}: this checkpoint holds a pickled object, which could run code when opened; it is refused."
                " Save it again as plain state dicts of tensors."
            ) from None
        raise InputError(f"{path}: not a checkpoint (it cannot be read by torch)") from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a checkpoint, or a truncated one ({reason})") from None
    if not isinstance(content, dict) or not any(isinstance(value, dict) for value in content.values()):
        raise InputError(f"{path}: not a checkpoint of a segmentation model (expected state dicts such as 'A' and 'B')")
    return content


@dataclass(frozen=True)
class Published:
    """How a checkpoint without our info is to be read."""

    method: str | None = None
    spec: DatasetSpec | None = None


def model_info(path: Path, content: dict[str, Any], published: Published = Published()) -> ModelInfo:
    """Return a checkpoint's info, or infer it from the weights of a published one.

    Raises:
        InputError: damaged info, or weights that are not a known network's.
    """
    if INFO_KEY in content:
        try:
            stored = json.loads(content[INFO_KEY])
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: its description of the model is damaged ({error})") from None
        return checked(ModelInfo, stored, source=f"{path}: its description of the model is damaged: ")
    try:
        guess, state = published_as_vnet({key: value for key, value in content.items() if isinstance(value, dict)})
        settings = settings_from_state(state)
    except (KeyError, StopIteration, AttributeError):
        raise InputError(f"{path}: the weights are not those of a V-Net that duomod knows") from None
    num_classes = int(settings.pop("num_classes"))
    settings.pop("in_channels")
    return ModelInfo(
        method=published.method or guess,
        network=NetworkConfig.model_validate(settings),
        num_classes=num_classes,
        patch=published.spec.patch if published.spec else DatasetSpec.model_fields["patch"].default,
        spec=published.spec,
    )


def load_weights(method: Method, content: dict[str, Any], path: Path) -> None:
    """Fill a method's networks from a checkpoint.

    Raises:
        InputError: a network is missing, or its weights have other names or shapes.
    """
    problems = []
    for key, module in method.published_modules().items():
        if key not in content:
            problems.append(f"{path}: no weights '{key}', which this method has (found: {', '.join(content)})")
            continue
        try:
            module.load_state_dict(content[key])
        except RuntimeError as error:
            first = str(error).splitlines()[1:2]
            problems.append(f"{path}: the weights '{key}' do not fit the network:{' '.join(first)}")
    if problems:
        raise InputError(problems)


def load_predictor(
    path: Path, device: torch.device | str = "cpu", *, method: str | None = None, spec: DatasetSpec | None = None
) -> tuple[nn.Module, ModelInfo]:
    """Load the module that maps an image (B, 1, D, H, W) in [0, 1] to logits, in eval mode.

    Args:
        path: ``best_model.pth``, ``last.pth``, or a published checkpoint.
        device: Where the module goes.
        method: For checkpoints without our info: the method's name (default: by the file's keys).
        spec: For those: the data set they were trained on.

    Raises:
        InputError: see :func:`read_checkpoint`, :func:`model_info` and :func:`load_weights`.
    """
    content = read_checkpoint(path)
    info = model_info(path, content, Published(method, spec))
    built = build_method(info)
    load_weights(built, content, path)
    return built.predictor().to(device).eval(), info
