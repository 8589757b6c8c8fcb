"""Lists of transforms on patches. Drawing (:func:`draw`) is apart from doing (:func:`apply`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from duomod.sampling.settings import TransformList
from duomod.sampling.transforms.base import Change, PatchInfo, SpatialChange, Transform
from duomod.sampling.transforms.geometry import Geometry
from duomod.seeding import generator

#: Gives the generator of a transform by its name.
Source = Callable[[str], np.random.Generator]


def own_generators(seed: int, purpose: str, step: int, sample: int) -> Source:
    """A generator for each transform by (seed, purpose, step, sample, name): none depends on what others draw."""
    return lambda name: generator(seed, f"{purpose}, {name}", step, sample)


def draw(transforms: Sequence[Transform], source: Source, patch: PatchInfo) -> tuple[Change, ...]:
    """Draw what the transforms do to one patch, in their order; transforms that leave it alone draw nothing.

    A transform that stands in the list again draws from a generator of its own too ("gamma 2").
    """
    changes, seen = [], dict.fromkeys((transform.name for transform in transforms), 0)
    for transform in transforms:
        seen[transform.name] += 1
        times = seen[transform.name]
        rng = source(transform.name if times == 1 else f"{transform.name} {times}")
        if rng.random() < transform.probability:
            changes.append(transform.draw(rng, patch))
    return tuple(changes)


def apply(
    image: Tensor, label: Tensor | None, changes: Sequence[Change], keep_range: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Apply drawn changes to one patch, in order.

    Args:
        image: (C, D, H, W) float32 in [0, 1].
        label: (D, H, W) int64, or None.
        changes: What :func:`draw` returned.
        keep_range: Bring intensities that were changed back into [0, 1].
    """
    for change in changes:
        image, label = change.apply(image, label)
    if keep_range and not all(isinstance(change, SpatialChange) for change in changes):
        image = image.clamp(0, 1)
    return image.contiguous(), None if label is None else label.contiguous()


def augmented(
    image: Tensor, label: Tensor | None, config: TransformList, source: Source, sided_pairs: tuple[tuple[int, int], ...]
) -> tuple[Tensor, Tensor | None]:
    """Draw and apply a list of transforms to one patch; shapes as for :func:`apply`."""
    changes = draw(config.transforms, source, PatchInfo(len(image), sided_pairs))
    return apply(image, label, changes, config.keep_range)


def moved_by(changes: Sequence[Change]) -> Geometry:
    """How the voxels of a changed patch are found in the patch it was made from."""
    geometry = Geometry()
    for change in changes:
        if isinstance(change, SpatialChange):
            geometry = geometry.then(change.geometry)
    return geometry
