"""FixMatch: confident predictions on the image as it is are the labels of a strongly disturbed view."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from duomod.methods.base import Batch, Method, MethodConfig, MethodContext, MethodInfo, Progress, StepOutput
from duomod.methods.shared.mixing import random_boxes
from duomod.methods.shared.teacher import EMATeacher, decay_at
from duomod.sampling.settings import ViewConfig, strong_view


class FixMatchConfig(MethodConfig):
    """Settings of FixMatch. Weight 1 and no ramp are the paper's: the threshold is the ramp."""

    consistency_weight: float = Field(1.0, ge=0, description="weight of the unsupervised term")
    rampup: float = Field(0.0, ge=0, description="length of its ramp-up; below 1: a share of training, else epochs")
    threshold: float = Field(
        0.95, ge=0, lt=1, description="a voxel's label counts where its probability is at least this"
    )
    strength: float = Field(1.0, ge=0, le=1, description="strength of the intensity changes of the strong view")
    cutmix: bool = Field(True, description="paste a box of the next unlabelled patch into the strong view")
    decay: float = Field(0.999, ge=0, lt=1, description="momentum of the weights used for prediction")

    reference: ClassVar = {"absent_class": "constant"}

    def view(self, name: str) -> ViewConfig:
        return strong_view(self.strength) if name == "strong" else super().view(name)


class FixMatch(Method[FixMatchConfig]):
    """L = Lsup + w mean_v [max p(weak) >= tau] CE(z(strong), argmax p(weak)).

    Confident classes of the unlabelled patch as it is are the labels of its strongly disturbed view, voxel by voxel. A
    running average of the weights predicts.

    See docs/methods/fixmatch.md, Equations.
    """

    Config = FixMatchConfig
    info = MethodInfo(
        title="FixMatch",
        paper="Sohn et al., FixMatch, NeurIPS 2020; strong view with CutMix as in French et al., BMVC 2020",
        year=2020,
        summary="confident pseudo-labels of the plain view train the strongly disturbed view",
    )

    views = ("weak", "strong")

    def __init__(self, config: FixMatchConfig, context: MethodContext) -> None:
        super().__init__(config, context)
        self.model = context.build_network("kaiming")
        self.average = EMATeacher(self.model)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        labelled, weak, target = len(batch.image_l), batch.views["weak"], batch.views["strong"]
        with torch.no_grad():
            probability = self.model(weak.image).float().softmax(1)
            confidence, pseudo = weak.carry_scores(probability, target).max(1)
        image = target.image
        if self.config.cutmix:
            image, confidence, pseudo = _cutmix(image, confidence, pseudo)
        logits = self.model(torch.cat([batch.image_l, image])).float()
        supervised = self.supervised_loss(logits[:labelled], batch.label_l)
        certain = (confidence >= self.config.threshold).float()
        unsupervised = (certain * functional.cross_entropy(logits[labelled:], pseudo, reduction="none")).mean()
        loss = supervised + self.consistency_weight(progress) * unsupervised
        parts = {"supervised": supervised.detach(), "pseudo": unsupervised.detach(), "certain": certain.mean()}
        return StepOutput(loss, parts)

    def after_step(self, progress: Progress) -> None:
        self.average.update(self.model, decay_at(progress.step, self.config.decay), copy_buffers=True)

    def predictor(self) -> nn.Module:
        return self.average.network

    def published_modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "ema_model": self.average.network}


def _cutmix(image: Tensor, confidence: Tensor, pseudo: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Paste a box of the next patch of the batch into each patch, with its labels; one patch alone stays as it is."""
    box = random_boxes(image, 0.3, 0.7)
    inside = box.squeeze(1)
    return (
        torch.where(box, image.roll(1, 0), image),
        torch.where(inside, confidence.roll(1, 0), confidence),
        torch.where(inside, pseudo.roll(1, 0), pseudo),
    )
