"""From a checkpoint file to a method with its weights, or to what predicts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from duomod.datasets.spec import DatasetSpec
from duomod.errors import InputError
from duomod.methods.base import Method
from duomod.training.build import build_method
from duomod.training.checkpoint import RESUME_KEY, read_checkpoint
from duomod.training.model_info import INFO_KEY, ModelInfo, stated_info
from duomod.training.published import Published, inferred_info


def model_info(path: Path, content: Mapping[str, Any], published: Published) -> ModelInfo:
    """Return a checkpoint's info, or infer it from the weights of a published one.

    Raises:
        InputError: damaged info, or weights that are not a known network's.
    """
    return stated_info(path, content) if INFO_KEY in content else inferred_info(path, content, published)


def load_weights(method: Method, content: Mapping[str, Any], path: Path) -> None:
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


def resumed_state(path: Path, info: ModelInfo) -> dict[str, Any] | None:
    """What a run to go on with has saved of itself in ``last.pth``.

    Raises:
        InputError: see :func:`read_checkpoint`; or the run trains other networks than ``info`` says.
    """
    content = read_checkpoint(path)
    begun = stated_info(path, content).network
    if begun != info.network:
        raise InputError(
            f"{path}: this run was begun with the network {begun.name}, but now the method builds {info.networks};"
            " --overwrite starts anew"
        )
    state: dict[str, Any] | None = content.get(RESUME_KEY)
    return state


def load_predictor(
    path: Path, device: torch.device | str = "cpu", *, method: str | None = None, spec: DatasetSpec | None = None
) -> tuple[nn.Module, ModelInfo]:
    """Load the module that maps an image (B, in_channels, D, H, W) in [0, 1] to logits, in eval mode.

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
