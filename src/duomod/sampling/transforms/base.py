"""What a transform is. Its settings are its fields; drawing (:meth:`Transform.draw`) is apart from doing
(:meth:`Change.apply`), and both are pure, so that what was drawn can be kept, compared and done again.

Nothing here loads torch: lists of transforms are part of the settings, which are read without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from duomod.sampling.transforms.geometry import Geometry, Pairs
from duomod.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True)
class PatchInfo:
    """What a transform may know of the patch when it draws.

    Attributes:
        channels: Channels of the image.
        sided_pairs: Class indices of right and left organs, which change places when a body is mirrored.
    """

    channels: int = 1
    sided_pairs: Pairs = ()


class Change(ABC):
    """What a transform drew for one patch: a frozen dataclass that holds all it needs to be applied."""

    @abstractmethod
    def apply(self, image: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the changed patch; the input stays as it is.

        Args:
            image: (C, D, H, W) float32.
            label: (D, H, W) int64, or None for an unlabelled patch.
        """


class IntensityChange(Change):
    """Leaves every voxel in its place."""

    @abstractmethod
    def change(self, image: Tensor) -> Tensor:
        """Return the changed image (C, D, H, W)."""

    def apply(self, image: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return self.change(image), label


@dataclass(frozen=True)
class SpatialChange(Change):
    """Moves the voxels of all channels and of the label alike."""

    geometry: Geometry

    def apply(self, image: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return self.geometry.move(image), None if label is None else self.geometry.move_label(label)


class Transform(Settings):
    """One entry of a list of transforms. A subclass stands in a file of its name and gives ``name`` that one value.

    Images are in [0, 1] when a list begins; a transform may leave that range, the list brings them back at its end.
    Spatial transforms act on all channels alike; intensity transforms draw for each channel anew, as channels are
    scans of their own.
    """

    #: Whether all it draws is an :class:`IntensityChange` or a :class:`SpatialChange`, so that a prediction can be
    #: carried from one view to another. A transform that is neither (say, an elastic one) sets this to False.
    known_geometry: ClassVar[bool] = True

    name: str
    probability: float = Field(1.0, ge=0, le=1, description="share of the patches that it changes")

    def __str__(self) -> str:
        """As it is written in a list: its name, with the parameters that are not its defaults."""
        changed = self.model_dump(exclude_defaults=True)
        if not changed:
            return self.name
        return f"{{{', '.join(f'{key}: {value}' for key, value in {'name': self.name, **changed}.items())}}}"

    @abstractmethod
    def draw(self, rng: np.random.Generator, patch: PatchInfo) -> Change:
        """Draw a change from a generator of this transform's own (one per seed, step, sample and transform)."""
