"""What the streams hand to a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from duomod.sampling.transforms.geometry import Geometry


@dataclass(frozen=True)
class View:
    """Patches of a batch, changed; and where their voxels came from, so that predictions can be carried over.

    Attributes:
        image: (B, C, D, H, W), of the unlabelled patches, or of the labelled and then the unlabelled ones.
        geometry: For each patch, how it was moved from the patch of the batch. Plain numbers on the host, so that
            carrying makes nobody wait for a device.
    """

    image: Tensor
    geometry: tuple[Geometry, ...]

    def carry_scores(self, scores: Tensor, target: View) -> Tensor:
        """Carry class scores of this view to where the same voxels are in another view of the same patches.

        Args:
            scores: (B, C, D, H, W) logits or probabilities, one channel per class; linear between voxels.
            target: The other view. Outside what this view shows, its edge is continued.
        """
        return self._carried(scores, target, Geometry.move_scores)

    def carry_label(self, label: Tensor, target: View) -> Tensor:
        """Carry label maps (B, D, H, W) int64 as :meth:`carry_scores` does scores, by the nearest voxel."""
        return self._carried(label, target, Geometry.move_label)

    def _carried(self, values: Tensor, target: View, move: Callable[[Geometry, Tensor], Tensor]) -> Tensor:
        if len(values) != len(self.geometry) or len(values) != len(target.geometry):
            raise ValueError(
                f"{len(values)} patches cannot be carried from a view of {len(self.geometry)}"
                f" to one of {len(target.geometry)}"
            )
        if self.geometry == target.geometry:
            return values
        ways = [own.inverse().then(other) for own, other in zip(self.geometry, target.geometry, strict=True)]
        return torch.stack([move(way, one) for way, one in zip(ways, values, strict=True)])

    def to(self, device: torch.device) -> View:
        """Copy to a device."""
        return View(self.image.to(device, non_blocking=True), self.geometry)


@dataclass(frozen=True)
class Batch:
    """One step's input. Images (B, C, D, H, W) in [0, 1]; labels (B, D, H, W) int64 class indices.

    The unlabelled part has an image and nothing else: a label of an unlabelled case cannot reach a method.
    ``image_u`` is None for methods that declare ``uses_unlabelled = False``. ``views`` holds what the method declares.
    """

    image_l: Tensor
    label_l: Tensor
    image_u: Tensor | None
    views: Mapping[str, View] = field(default_factory=dict)

    def to(self, device: torch.device) -> Batch:
        """Copy to a device."""
        unlabelled = None if self.image_u is None else self.image_u.to(device, non_blocking=True)
        views = {
            # A view that changes nothing is the unlabelled patches themselves, and stays that.
            name: View(unlabelled, view.geometry)
            if unlabelled is not None and view.image is self.image_u
            else view.to(device)
            for name, view in self.views.items()
        }
        return Batch(
            self.image_l.to(device, non_blocking=True), self.label_l.to(device, non_blocking=True), unlabelled, views
        )

    def unlabelled(self) -> Tensor:
        """The unlabelled images, for methods that cannot do without."""
        if self.image_u is None:
            raise ValueError("this method needs unlabelled images, but the batch has none")
        return self.image_u
