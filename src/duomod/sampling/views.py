"""Views of a batch's patches, made from random numbers of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from duomod.sampling.augment import apply, draw, moved_by, own_generators
from duomod.sampling.batch import Batch, View
from duomod.sampling.settings import ViewConfig
from duomod.sampling.transforms.base import PatchInfo
from duomod.sampling.transforms.geometry import Geometry, Pairs


def with_views(
    batch: Batch, views: Mapping[str, ViewConfig], seed: int, step: int = 0, sided_pairs: Pairs = ()
) -> Batch:
    """Return a batch with the views that a method declares; for the loader, and for batches made by hand.

    Args:
        batch: On the CPU.
        views: The views by name, as ``Method.view_settings`` gives them.
        seed: Of the training.
        step: Of the training. Each patch of each view draws by (seed, name of the view, step, its place in the batch).
        sided_pairs: Class indices of right and left organs, which a mirrored view exchanges.
    """
    return replace(batch, views={name: _view(batch, name, views[name], seed, step, sided_pairs) for name in views})


def _view(batch: Batch, name: str, config: ViewConfig, seed: int, step: int, sided_pairs: Pairs) -> View:
    parts: list[tuple[str, Tensor]] = [("labelled", batch.image_l)] if config.of == "all" else []
    if config.of == "unlabelled":
        parts.append(("unlabelled", batch.unlabelled()))
    elif batch.image_u is not None:
        parts.append(("unlabelled", batch.image_u))
    if not config.transforms and len(parts) == 1:
        ((_, image),) = parts
        return View(image, (Geometry(),) * len(image))
    patches, geometry = [], []
    for part, images in parts:
        for sample, image in enumerate(images):
            source = own_generators(seed, f"{part} view {name}", step, sample)
            changes = draw(config.transforms, source, PatchInfo(len(image), sided_pairs))
            patches.append(apply(image, None, changes, config.keep_range)[0])
            geometry.append(moved_by(changes))
    return View(torch.stack(patches), tuple(geometry))
