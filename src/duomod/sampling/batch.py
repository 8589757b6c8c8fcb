"""What the streams hand to a method."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One step's input. Images (B, 1, D, H, W) in [0, 1]; labels (B, D, H, W) int64 class indices.

    The unlabelled part has an image and nothing else: a label of an unlabelled case cannot reach a method.
    ``image_u`` is None for methods that declare ``uses_unlabelled = False``.
    """

    image_l: Tensor
    label_l: Tensor
    image_u: Tensor | None

    def to(self, device: torch.device) -> Batch:
        """Copy to a device."""
        unlabelled = None if self.image_u is None else self.image_u.to(device, non_blocking=True)
        return Batch(self.image_l.to(device, non_blocking=True), self.label_l.to(device, non_blocking=True), unlabelled)

    def unlabelled(self) -> Tensor:
        """The unlabelled images, for methods that cannot do without."""
        if self.image_u is None:
            raise ValueError("this method needs unlabelled images, but the batch has none")
        return self.image_u
