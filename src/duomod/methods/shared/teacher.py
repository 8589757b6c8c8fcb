"""The mean teacher: a second copy of a network that follows the trained one as a running average."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

StudentT = TypeVar("StudentT", bound=nn.Module, covariant=True)


class EMATeacher(nn.Module, Generic[StudentT]):
    """A copy of ``student`` that no gradient reaches and that :meth:`update` pulls towards the student.

    Source: Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017, eq. 2.
    The student itself is not held, so that it is not saved twice.
    """

    network: StudentT

    def __init__(self, student: StudentT) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """The teacher's logits; its mode (train or eval) is whatever its owner set."""
        logits: Tensor = self.network(x)
        return logits

    @torch.no_grad()
    def update(self, student: nn.Module, decay: float, copy_buffers: bool) -> None:
        """theta' <- decay theta' + (1 - decay) theta, in place.

        Args:
            student: The trained network.
            decay: In [0, 1]; 0 copies the student.
            copy_buffers: Also copy the buffers (running statistics of batch normalisation) as they are; otherwise they
                stay the teacher's own.
        """
        teacher: list[Tensor] = list(self.network.parameters())
        target: list[Tensor] = list(student.parameters())
        torch._foreach_lerp_(teacher, target, 1.0 - decay)
        if copy_buffers:
            for own, theirs in zip(self.network.buffers(), student.buffers(), strict=True):
                own.copy_(theirs)


def decay_at(step: int, largest: float) -> float:
    """min(1 - 1/(n + 1), largest): the true average of all weights so far until ``largest`` is reached.

    Args:
        step: n, counted from 0. The default presets count steps, the reference counts epochs.
        largest: The final decay.
    """
    return min(1.0 - 1.0 / (step + 1), largest)
