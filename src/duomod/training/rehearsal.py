"""Before a run's folder is made: whether its networks and its method take patches as small as asked for."""

from __future__ import annotations

from pathlib import Path

import torch

from duomod.errors import InputError
from duomod.methods.base import Batch, Method, Progress
from duomod.networks.base import Encoder
from duomod.sampling.settings import SamplingConfig
from duomod.sampling.views import with_views
from duomod.training.build import build_method
from duomod.training.model_info import ModelInfo

Patch = tuple[int, int, int]

#: Along an axis shorter than this, filters of a method's own may not fit (BCP removes small components with one of 4).
_SHORT = 8

#: Edges that are tried for a sentence that says how small is not too small.
_EDGES = (2, 4, 8, 16, 32, 64)


def demand_patch(info: ModelInfo, sampling: SamplingConfig, plugin: Path | None) -> None:
    """Refuse patches that are too small to train on; larger ones cost nothing here.

    Most networks pad what does not fit, but a normalisation over the batch needs two values for each channel, and
    where all levels halve the patch there may be one left.

    Raises:
        InputError: names the smallest cube that would do.
    """
    if min(info.patch) >= _SHORT and max(info.patch) > _EDGES[-1]:
        return
    method = _built(info, plugin)
    stride = _stride(method)
    if min(info.patch) >= _SHORT and any(length > step for length, step in zip(info.patch, stride, strict=True)):
        return
    problem = _problem(method, info, sampling, info.patch)
    if problem is None:
        return
    for edge in (edge for edge in _EDGES if edge <= max(_SHORT, 2 * max(stride))):
        z, y, x = info.patch
        larger = (max(z, edge), max(y, edge), max(x, edge))
        if larger != info.patch and _problem(_built(info, plugin), info, sampling, larger) is None:
            raise InputError(
                f"--patch {_text(info.patch)} is too small for {info.method} with {info.networks}, which halves it down"
                f" to 1 / {_text(stride)}, and {sampling.batch} labelled patches per step; the smallest that works:"
                f" --patch {_text(larger)}"
            ) from problem


def _built(info: ModelInfo, plugin: Path | None) -> Method:
    with torch.random.fork_rng(devices=[]):
        return build_method(info, plugin=plugin)


def _stride(method: Method) -> Patch:
    """How much coarser than the patch the coarsest map of any network is."""
    strides = [(1, 1, 1), *(module.stride for module in method.modules() if isinstance(module, Encoder))]
    z, y, x = (max(lengths) for lengths in zip(*strides, strict=True))
    return z, y, x


def _problem(method: Method, info: ModelInfo, sampling: SamplingConfig, patch: Patch) -> Exception | None:
    """Train and predict a little, on noise; returns what comes of it."""
    with torch.random.fork_rng(devices=[]):
        shape = (info.in_channels, *patch)
        unlabelled = torch.rand(sampling.batch_unlabeled or sampling.batch, *shape) if method.uses_unlabelled else None
        label = torch.randint(info.num_classes, (sampling.batch, *patch))
        plain = Batch(torch.rand(sampling.batch, *shape), label, unlabelled)
        batch = with_views(plain, method.view_settings(method.config), seed=0)
        try:
            method.train()
            for step in (0, 50, 99):  # what a method does only at first, or only later
                progress = Progress(step, total_steps=100, steps_per_epoch=1)
                torch.autograd.backward(method(batch, progress).loss)
                method.after_step(progress)
            method.predictor().eval()(plain.image_l[:1])
        except Exception as error:
            return error
    return None


def _text(patch: Patch) -> str:
    return ",".join(map(str, patch))
