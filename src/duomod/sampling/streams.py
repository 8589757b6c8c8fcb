"""The labelled and the unlabelled stream. Sample ``i`` of step ``s`` depends on (seed, s, i) only: training can resume.

An unlabelled stream is given images and body voxels, nothing else: it has no way to a label. Neither stream is given
evaluation or test cases.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from duomod.datasets.splits import Split
from duomod.errors import InputError
from duomod.preprocessing.intensity import normalise
from duomod.preprocessing.store import BODY, Store
from duomod.sampling.augment import augmented, own_generators
from duomod.sampling.batch import Batch
from duomod.sampling.loading import made_ahead
from duomod.sampling.patches import Index3, corner_around, random_corner, read_patch
from duomod.sampling.settings import AugmentConfig, CountsFrom, SamplingConfig, ViewConfig
from duomod.sampling.views import with_views
from duomod.seeding import generator, torch_seed


@dataclass(frozen=True)
class Crop:
    """Settings shared by both streams."""

    patch: Index3
    seed: int
    sampling: SamplingConfig
    augment: AugmentConfig

    @property
    def unlabelled_batch(self) -> int:
        """Unlabelled patches per step."""
        return self.sampling.batch_unlabeled or self.sampling.batch

    def augment_patch(
        self,
        image: Tensor,
        label: Tensor | None,
        rng: np.random.Generator,
        purpose: str,
        place: tuple[int, int],
        sided_pairs: tuple[tuple[int, int], ...],
    ) -> tuple[Tensor, Tensor | None]:
        """Augment a patch (C, D, H, W); ``rng`` is what the crop was drawn from, ``place`` is step and sample."""
        own = own_generators(self.seed, purpose, *place)
        source = own if self.augment.draws == "own" else lambda name: rng
        return augmented(image, label, self.augment, source, sided_pairs)

    def cut(
        self, rng: np.random.Generator, shape: Index3, centres: Sequence[NDArray[np.int32]], share: float
    ) -> Index3:
        """Choose a corner: with probability ``share`` around a voxel of ``centres``, drawn uniformly; or anywhere."""
        if centres and rng.random() < share:
            voxels = centres[int(rng.integers(len(centres)))]
            z, y, x = voxels[int(rng.integers(len(voxels)))]
            a, b, c = 0.5 + self.sampling.jitter * (rng.random(3) - 0.5)
            return corner_around((int(z), int(y), int(x)), shape, self.patch, (float(a), float(b), float(c)))
        margin = self.sampling.small_axis_margin
        return random_corner(rng, shape, self.patch, margin)


def case_at(cases: Sequence[str], position: int, seed: int, purpose: str, replacement: bool) -> str:
    """The case at a position of the endless stream: each pass goes through all cases in a new order."""
    if replacement:
        return cases[int(generator(seed, purpose, position).integers(len(cases)))]
    passes, index = divmod(position, len(cases))
    return cases[int(generator(seed, purpose, passes).permutation(len(cases))[index])]


def _labelled_case(cases: Sequence[str], crop: Crop, step: int, index: int) -> str:
    sampling = crop.sampling
    return case_at(cases, step * sampling.batch + index, crop.seed, "labelled case", sampling.labelled_replacement)


def _unlabelled_case(cases: Sequence[str], crop: Crop, step: int, index: int) -> str:
    return case_at(cases, step * crop.unlabelled_batch + index, crop.seed, "unlabelled case", False)


def cases_of_step(split: Split, crop: Crop, step: int, uses_unlabelled: bool) -> list[str]:
    """The cases that a step's patches are cut from, in their order: labelled ones, then unlabelled ones."""
    cases = [_labelled_case(split.labelled, crop, step, index) for index in range(crop.sampling.batch)]
    if uses_unlabelled:
        cases += [_unlabelled_case(split.unlabelled, crop, step, index) for index in range(crop.unlabelled_batch)]
    return cases


class LabelledStream:
    """Patches with labels, from labelled training cases."""

    def __init__(self, store: Store, cases: Sequence[str], crop: Crop) -> None:
        self.store, self.cases, self.crop = store, cases, crop
        self._coords: dict[str, dict[int, NDArray[np.int32]]] = {}

    def coords(self, case: str) -> dict[int, NDArray[np.int32]]:
        """A case's voxels per class, read once."""
        if case not in self._coords:
            self._coords[case] = self.store.coords(case)
        return self._coords[case]

    def sample(self, step: int, index: int) -> tuple[Tensor, Tensor]:
        """Return image (C, D, H, W) float32 and label (D, H, W) int64."""
        crop, sampling = self.crop, self.crop.sampling
        case = _labelled_case(self.cases, crop, step, index)
        rng = generator(crop.seed, "labelled crop", step, index)
        classes = [voxels for label, voxels in self.coords(case).items() if label != BODY and len(voxels)]
        if sampling.labelled == "foreground":
            # Any organ voxel, in proportion to volume: as the reference does, the liver drowns the adrenals.
            sizes = np.asarray(self.store.cases[case].voxels, dtype=float)[1:]
            present = sizes[sizes > 0]
            if len(present):
                classes = [classes[int(rng.choice(len(present), p=present / present.sum()))]]
        elif sampling.labelled == "uniform":
            classes = []
        volume = self.store.image(case)
        corner = crop.cut(rng, self.store.cases[case].shape, classes, sampling.labelled_share)
        image = _normalised_patch(self.store, case, volume, corner, crop.patch)
        voxels, padding = read_patch(self.store.label(case), corner, crop.patch)
        label = torch.from_numpy(np.pad(voxels, padding).astype(np.int64))
        pairs = self.store.spec.sided_label_pairs
        image, moved = crop.augment_patch(image, label, rng, "labelled augment", (step, index), pairs)
        assert moved is not None
        return image, moved


def class_counts(store: Store, cases: Sequence[str], crop: Crop, source: CountsFrom = "volumes") -> Tensor:
    """Count the labelled voxels of each class: in all volumes, in the first four, or in one random crop of each.

    Returns:
        (C,) float64, background first.
    """
    if source != "crops":
        chosen = cases if source == "volumes" else cases[:4]
        return torch.from_numpy(np.asarray(store.class_counts(chosen), dtype=np.float64))
    sampling = crop.sampling.model_copy(update={"labelled_replacement": False})
    stream = LabelledStream(store, cases, replace(crop, sampling=sampling, seed=torch_seed(crop.seed, "class counts")))
    labels = [stream.sample(*divmod(position, sampling.batch))[1] for position in range(len(cases))]
    counted = [torch.bincount(label.flatten(), minlength=store.spec.num_classes) for label in labels]
    return torch.stack(counted).sum(0).double()


class UnlabelledStream:
    """Patches without labels. Only images and body voxels of the store are ever asked for."""

    def __init__(self, store: Store, cases: Sequence[str], crop: Crop) -> None:
        self.store, self.cases, self.crop = store, cases, crop
        self._body: dict[str, NDArray[np.int32]] = {}

    def body(self, case: str) -> NDArray[np.int32]:
        """A case's body voxels, read once; of all coordinates these alone are kept."""
        if case not in self._body:
            self._body[case] = self.store.coords(case)[BODY]
        return self._body[case]

    def sample(self, step: int, index: int) -> Tensor:
        """Return an image (C, D, H, W) float32."""
        crop = self.crop
        case = _unlabelled_case(self.cases, crop, step, index)
        rng = generator(crop.seed, "unlabelled crop", step, index)
        body = [self.body(case)] if crop.sampling.unlabelled == "body" and len(self.body(case)) else []
        corner = crop.cut(rng, self.store.cases[case].shape, body, 1.0)
        image = _normalised_patch(self.store, case, self.store.image(case), corner, crop.patch)
        return crop.augment_patch(image, None, rng, "unlabelled augment", (step, index), ())[0]


def _normalised_patch(store: Store, case: str, volume: NDArray[np.generic], corner: Index3, patch: Index3) -> Tensor:
    voxels, padding = read_patch(volume, corner, patch)
    image = normalise(voxels, store.cases[case].modality, store.spec.window)
    return torch.from_numpy(np.pad(image, padding))


class Steps:
    """Makes the whole batch of any step."""

    def __init__(
        self, labelled: LabelledStream, unlabelled: UnlabelledStream | None, views: Mapping[str, ViewConfig]
    ) -> None:
        self.labelled, self.unlabelled, self.views = labelled, unlabelled, views

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        stream = self.labelled
        sampling = stream.crop.sampling
        pairs = [self.labelled.sample(step, i) for i in range(sampling.batch)]
        images = None
        if self.unlabelled is not None:
            images = torch.stack([self.unlabelled.sample(step, i) for i in range(stream.crop.unlabelled_batch)])
        batch = Batch(torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs]), images)
        return with_views(batch, self.views, stream.crop.seed, step, stream.store.spec.sided_label_pairs)


def demand_cases(store: Store, split: Split, uses_unlabelled: bool) -> None:
    """Check that a split has the cases that a training needs.

    Raises:
        InputError: no labelled case, or no unlabelled case although the method needs some.
    """
    if not split.labelled:
        raise InputError(f"{store.folder}: split '{split.name}' has no labelled case")
    if uses_unlabelled and not split.unlabelled:
        raise InputError(
            f"{store.folder}: split '{split.name}' has no unlabelled case, which this method needs;"
            " label fewer (--labeled_ratio) or use --model supervised"
        )


#: Of methods that ask for none.
NO_VIEWS: Mapping[str, ViewConfig] = {}


def batches(
    store: Store,
    split: Split,
    crop: Crop,
    steps: range,
    uses_unlabelled: bool,
    workers: int = 0,
    views: Mapping[str, ViewConfig] = NO_VIEWS,
) -> Generator[Batch]:
    """Return the batches of ``steps``, in order, made by ``workers`` processes (0: in this one), with ``views``.

    Close it, or come to its end, so that the processes end: see :func:`made_ahead`, also for its errors.

    Raises:
        InputError: the split has no labelled case, or no unlabelled case although the method needs some.
    """
    demand_cases(store, split, uses_unlabelled)
    dataset = Steps(
        LabelledStream(store, split.labelled, crop),
        UnlabelledStream(store, split.unlabelled, crop) if uses_unlabelled else None,
        views,
    )
    return made_ahead(dataset.batch, steps, workers) if workers else (dataset.batch(step) for step in steps)
