"""What a training run is, and where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from duomod.config import TrainConfig
from duomod.datasets.splits import Split
from duomod.methods.base import Method
from duomod.preprocessing.store import Store
from duomod.sampling.streams import Crop
from duomod.training.model_info import ModelInfo
from duomod.training.settings import OnNan


@dataclass(frozen=True)
class Run:
    """One training run: everything that is fixed before the first step."""

    folder: Path
    method: Method
    info: ModelInfo
    store: Store
    split: Split
    config: TrainConfig
    seed: int
    device: torch.device
    dtype: torch.dtype | None
    total_steps: int
    steps_per_epoch: int
    on_nan: OnNan = "stop"

    @property
    def schedule_steps(self) -> int:
        """Length of learning-rate schedule and ramps; a final epoch comes on top of it."""
        return self.total_steps - self.steps_per_epoch * self.config.final_epoch

    @property
    def last(self) -> Path:
        """The checkpoint to go on from."""
        return self.folder / "ckpts" / "last.pth"

    @property
    def best(self) -> Path:
        """The checkpoint of the best validation."""
        return self.folder / "ckpts" / "best_model.pth"

    @property
    def crop(self) -> Crop:
        """How patches are drawn."""
        return Crop(self.info.patch, self.seed, self.config.sampling, self.config.augment)


@dataclass
class State:
    """Where a run stands; with weights and optimizer, all that resuming needs.

    Attributes:
        step: Steps taken.
        best_dice: Of the best validation; -1 before the first.
        best_step: Steps before it.
        without_improvement: Validations since.
        skipped: Steps that were left out because their loss or gradient was not a number.
        validation_due: The validation after the last step was put off, because the run was to stop at once.
    """

    step: int = 0
    best_dice: float = -1.0
    best_step: int = 0
    without_improvement: int = 0
    skipped: int = 0
    validation_due: bool = False
