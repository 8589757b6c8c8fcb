"""From a checkpoint file to a method with its weights, or to what predicts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from duomod.console import say
from duomod.datasets.spec import DatasetSpec
from duomod.errors import InputError, in_one_line
from duomod.plugins import file_sha256
from duomod.settings import checked
from duomod.training.build import build_method
from duomod.training.checkpoint import RESUME_KEY, Checkpoint, read_checkpoint
from duomod.training.model_info import INFO_KEY, ModelInfo, stated_info
from duomod.training.numbers import not_finite
from duomod.training.published import Published, inferred_info
from duomod.training.stock_predictor import built_within


def model_info(path: Path, content: Mapping[str, Any], published: Published) -> ModelInfo:
    """Return a checkpoint's info, or infer it from the weights of a published one.

    Raises:
        InputError: damaged info, or weights that are not a known network's.
    """
    return stated_info(path, content) if INFO_KEY in content else inferred_info(path, content, published)


def load_weights(modules: Mapping[str, nn.Module], content: Mapping[str, Any], path: Path) -> None:
    """Fill networks from a checkpoint, each from its key.

    Raises:
        InputError: a network is missing, its weights are no tensors, have other names or shapes, or are not finite.
    """
    problems = []
    for key, module in modules.items():
        if key not in content:
            found = in_one_line(", ".join(content))
            problems.append(f"{path}: no weights '{key}', which this method has (found: {found})")
            continue
        wrong = _unusable(content[key])
        if wrong is not None:
            problems.append(f"{path}: the weights '{key}' are damaged: {wrong}; take another copy of the file")
            continue
        # A buffer may begin with an infinite value (a smallest value so far); it may keep one.
        endless = set(not_finite(module.state_dict().items()))
        try:
            module.load_state_dict(content[key])
        except RuntimeError as error:
            first = in_one_line(" ".join(str(error).splitlines()[1:2]).strip())
            problems.append(f"{path}: the weights '{key}' do not fit the network: {first}")
            continue
        bad = [name for name in not_finite(module.state_dict().items()) if name not in endless]
        if bad:
            problems.append(
                f"{path}: the weights '{key}' are not finite ({len(bad)} tensors, the first is {bad[0]}), so they"
                " predict nothing; the training went wrong: take an earlier checkpoint, or train again"
            )
    if problems:
        raise InputError(problems)


def _unusable(state: Any) -> str | None:
    """Why something is no state dict of plain tensors of real numbers; None if it is one."""
    if not isinstance(state, dict):
        return f"no state dict but {type(state).__name__}"
    for name, value in state.items():
        if not isinstance(name, str):
            return f"a tensor has the name {in_one_line(repr(name))}"
        if not isinstance(value, Tensor):
            return f"{in_one_line(name)} is no tensor but {type(value).__name__}"
        if value.layout is not torch.strided or value.is_quantized or value.is_meta or value.is_complex():
            return f"{in_one_line(name)} is no plain tensor of real numbers"
    return None


class SavedState(BaseModel):
    """What ``last.pth`` says of where its run stands; the rest is the method's and the optimizer's."""

    model_config = ConfigDict(extra="allow")

    step: int = Field(ge=0)
    best_dice: float = -1.0
    best_step: int = Field(0, ge=0)
    without_improvement: int = Field(0, ge=0)


def resumed_state(path: Path, info: ModelInfo) -> dict[str, Any] | None:
    """What a run to go on with has saved of itself in ``last.pth``.

    Raises:
        InputError: see :func:`read_checkpoint`; the run trains other networks than ``info`` says; or its state is
            damaged, or holds weights that are not finite.
    """
    content = read_checkpoint(path)
    begun = stated_info(path, content)
    if begun.network != info.network:
        raise InputError(
            f"{path}: this run was begun with the network {begun.network.name}, but now the method builds"
            f" {info.networks}; --overwrite starts anew"
        )
    if begun.plugin_sha256 and begun.plugin_sha256 != info.plugin_sha256:
        say(f"{path}: this run was begun with another plug-in file than the one that is given now")
    state = content.get(RESUME_KEY)
    if state is None:
        return None
    parts = {"method", "optimizer", "scaler", "state"}
    damaged = f"{path}: the state to go on from is damaged"
    if not isinstance(state, dict) or any(not isinstance(state.get(part), dict) for part in parts):
        raise InputError(f"{damaged}: it lacks its parts")
    checked(SavedState, state["state"], source=f"{damaged}: ")
    wrong = _unusable(state["method"])
    if wrong is not None:
        raise InputError(f"{damaged}: {wrong}")
    lost = [name for name, tensor in state["method"].items() if tensor.is_floating_point() and tensor.isnan().any()]
    if lost:
        raise InputError(f"{damaged}: {len(lost)} of its tensors hold NaN, the first is {in_one_line(lost[0])}")
    return state


def load_predictor(
    path: Path,
    device: torch.device | str = "cpu",
    *,
    method: str | None = None,
    spec: DatasetSpec | None = None,
    plugin: Path | None = None,
) -> tuple[nn.Module, ModelInfo]:
    """Load the module that maps an image (B, in_channels, D, H, W) in [0, 1] to logits, in eval mode.

    Args:
        path: ``best_model.pth``, ``last.pth``, or a published checkpoint.
        device: Where the module goes.
        method: For checkpoints without our info: the method's name (default: by the file's keys).
        spec: For those: the data set they were trained on.
        plugin: Python file with the method or the network that it was trained with, if it was a plug-in.

    Raises:
        InputError: see :func:`read_checkpoint` and :func:`predictor_of`.
    """
    return predictor_of(read_checkpoint(path), path, device, Published(method, spec), plugin)


def predictor_of(
    content: Checkpoint, path: Path, device: torch.device | str, published: Published, plugin: Path | None = None
) -> tuple[nn.Module, ModelInfo]:
    """The same from what the file at ``path`` held when it was read.

    Raises:
        InputError: see :func:`model_info` and :func:`load_weights`; or the model needs a plug-in that was not given.
    """
    info = model_info(path, content, published)
    if plugin is not None and info.plugin is None:
        raise InputError(f"{path}: was trained without a plug-in; leave --plugin out")
    try:
        if plugin is None and not built_within(content.size, info.network):
            raise InputError(f"{path}: its description of the model is damaged: a larger network than its weights are")
        network, modules = _network(info, path, plugin)
    except (RuntimeError, MemoryError, ValueError, TypeError, ArithmeticError) as error:
        reason = in_one_line(str(error).partition("\n")[0])
        raise InputError(f"{path}: the model that it describes cannot be built ({reason})") from None
    load_weights(modules, content, path)
    if plugin is not None and not info.plugin_sha256:
        say(f"{path}: does not record which file its plug-in was; what {plugin} predicts may differ")
    elif plugin is not None and info.plugin_sha256 != file_sha256(plugin):
        say(f"{plugin}: not the same file as {path} was trained with; what it predicts may differ")
    return network.to(device).eval(), info


def _network(info: ModelInfo, path: Path, plugin: Path | None) -> tuple[nn.Module, Mapping[str, nn.Module]]:
    """What predicts, with fresh weights, and the networks to fill by their keys."""
    try:
        if info.plugin is None or plugin is not None:
            method = build_method(info, plugin=plugin)
            return method.predictor(), method.published_modules()
        if info.predictor is not None:
            return info.predictor.build(info.network, info.num_classes)
    except InputError as error:
        raise InputError([f"{path}: {in_one_line(problem, 400)}" for problem in error.problems]) from None
    name = in_one_line(Path(info.plugin).name)
    raise InputError(
        f"{path}: the method '{in_one_line(info.method)}' was trained with the plug-in {name}, which is code: it is not"
        " run because a file names it; give the file that you trust with --plugin"
    )
