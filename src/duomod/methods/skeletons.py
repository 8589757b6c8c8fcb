"""What several methods are built on: two networks, a student and its teacher, or CPS with re-balanced pseudo-labels."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import TypeVar

from duomod.methods.base import Batch, ConfigT, Method, MethodConfig, MethodContext, Progress, StepOutput
from duomod.methods.shared.teacher import EMATeacher, decay_at
from duomod.methods.shared.two_networks import MeanLogits
from duomod.networks.base import Network
from duomod.networks.builder import Init


class TwoNetworks(Method[ConfigT]):
    """Networks ``A`` (Kaiming) and ``B`` (Xavier): same input, different start, own dropout masks.

    See docs/methods/README.md, Initialisation.
    """

    A: Network
    B: Network

    def __init__(self, config: ConfigT, context: MethodContext) -> None:
        super().__init__(config, context)
        self.A, self.B = self.network(context, "kaiming"), self.network(context, "xavier")

    def network(self, context: MethodContext, init: Init) -> Network:
        """One of the two; a method that needs another form of it says so here."""
        return context.build_network(init)

    def predictor(self) -> nn.Module:
        return MeanLogits(self.A, self.B)

    def published_modules(self) -> dict[str, nn.Module]:
        return {"A": self.A, "B": self.B}


class TeacherConfig(MethodConfig):
    """Settings of a method with a teacher."""

    decay: float = Field(0.99, ge=0, lt=1, description="largest momentum of the teacher")
    copy_buffers: bool = Field(True, description="the teacher takes over the batch-norm statistics")

    def count(self, progress: Progress) -> int:
        """What the teacher's momentum counts."""
        return progress.step


class NoisyTeacherConfig(TeacherConfig):
    """Settings of a method whose teacher sees noisy input."""

    noise: float = Field(0.1, ge=0, description="standard deviation of the teacher's input noise")
    noise_clip: float = Field(0.2, ge=0, description="largest size of that noise")


class ClockedTeacherConfig(NoisyTeacherConfig):
    """Settings of a method whose published code counts epochs where the paper counts steps."""

    clock: Literal["step", "epoch"] = Field("step", description="what the teacher's momentum counts")

    def count(self, progress: Progress) -> int:
        return progress.step if self.clock == "step" else progress.epoch


TeacherT = TypeVar("TeacherT", bound=TeacherConfig, covariant=True)


class StudentAndTeacher(Method[TeacherT]):
    """A trained ``model`` and its running average ``teacher``, which predicts."""

    model: Network
    teacher: EMATeacher[Network]

    def __init__(self, config: TeacherT, context: MethodContext) -> None:
        super().__init__(config, context)
        self.model = self.student(context)
        self.teacher = EMATeacher(self.model)

    def student(self, context: MethodContext) -> Network:
        """The trained network; a method that needs another form of it says so here."""
        return context.build_network("kaiming")

    def after_step(self, progress: Progress) -> None:
        decay = decay_at(self.config.count(progress), self.config.decay)
        self.teacher.update(self.model, decay, self.config.copy_buffers)

    def predictor(self) -> nn.Module:
        return self.teacher.network

    def published_modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "ema_model": self.teacher.network}


class RebalancedConfig(MethodConfig):
    """Settings of SimiS and CReST. ``reference``: their adaptation to segmentation in DHC (Wang and Li, 2023)."""

    weighted: Literal["pseudo", "all"] = Field(
        "pseudo",
        description="pseudo: re-balance the pseudo-labels (the papers); all: also the supervised loss (DHC)",
    )
    momentum: float = Field(
        1.0,
        ge=0,
        le=1,
        description="of the weights; 1: those of the labelled scans (the papers); less: follow predictions",
    )
    counted: Literal["all", "unlabelled"] = Field("unlabelled", description="predictions that the weights follow")

    reference: ClassVar = {**MethodConfig.reference, "weighted": "all", "momentum": 0.99}


RebalancedT = TypeVar("RebalancedT", bound=RebalancedConfig, covariant=True)


class RebalancedCPS(TwoNetworks[RebalancedT]):
    """CPS with one weight per class and network. A subclass says how weights follow from class counts."""

    Config: ClassVar[type[MethodConfig]] = RebalancedConfig
    weights_a: Tensor
    weights_b: Tensor

    def __init__(self, config: RebalancedT, context: MethodContext) -> None:
        super().__init__(config, context)
        initial = self.initial_weights(context.class_counts.float())
        self.register_buffer("weights_a", initial)
        self.register_buffer("weights_b", initial.clone())

    @abstractmethod
    def class_weights(self, counts: Tensor) -> Tensor:
        """(C,) weights from (C,) voxel counts."""

    def initial_weights(self, counts: Tensor) -> Tensor:
        """Weights at the start, from the labelled volumes."""
        return self.class_weights(counts)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        labelled = len(batch.image_l)
        x = torch.cat([batch.image_l, batch.unlabelled()])
        za, zb = self.A(x).float(), self.B(x).float()
        ya, yb = za.detach().argmax(1), zb.detach().argmax(1)
        wa, wb = self._follow(self.weights_a, ya, labelled), self._follow(self.weights_b, yb, labelled)
        everywhere = self.config.weighted == "all"
        supervised = self.supervised_loss(
            za[:labelled], batch.label_l, wa if everywhere else None, wa if everywhere else None
        ) + self.supervised_loss(zb[:labelled], batch.label_l, wb if everywhere else None, wb if everywhere else None)
        pseudo = _weighted_mean_ce(za, yb, wa) + _weighted_mean_ce(zb, ya, wb)
        loss = supervised + self.consistency_weight(progress) * pseudo
        parts = {"supervised": supervised.detach(), "cps": pseudo.detach(), "weight_max": self.weights_a.max()}
        return StepOutput(loss, parts)

    @torch.no_grad()
    def _follow(self, weights: Tensor, predicted: Tensor, labelled: int) -> Tensor:
        """w <- m w + (1 - m) w(counts of the predictions), in place; returns this step's copy."""
        if self.config.momentum < 1:
            counted = (predicted if self.config.counted == "all" else predicted[labelled:]).flatten()
            counts = torch.zeros_like(weights).scatter_add_(0, counted, torch.ones_like(counted, dtype=weights.dtype))
            weights.lerp_(self.class_weights(counts), 1 - self.config.momentum)
        return weights.clone()


def _weighted_mean_ce(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy divided by the sum of the targets' weights; 0, not NaN, where every target's weight is 0."""
    total = weight[target].sum()
    return functional.cross_entropy(logits, target, weight, reduction="sum") / total.clamp(min=1e-6)
