"""Mean teacher: agree with the running average of yourself."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from pydantic import Field
from torch import nn

from duomod.methods.base import Batch, Method, MethodConfig, MethodContext, MethodInfo, Progress, StepOutput
from duomod.methods.shared.noise import clipped_gaussian
from duomod.methods.shared.teacher import EMATeacher, decay_at


class MeanTeacherConfig(MethodConfig):
    """Settings of the mean teacher; noise and weight as its medical adaptations use them (UA-MT's baseline)."""

    decay: float = Field(0.99, ge=0, lt=1, description="largest momentum of the teacher")
    copy_buffers: bool = Field(True, description="the teacher takes over the batch-norm statistics")
    noise: float = Field(0.1, ge=0, description="standard deviation of the teacher's input noise")
    noise_clip: float = Field(0.2, ge=0, description="largest size of that noise")

    #: The ramp of the published 3D version lasts the whole training.
    reference: ClassVar[Any] = {**MethodConfig.reference, "rampup": 0.9999, "copy_buffers": False}


class MeanTeacher(Method):
    """L = Lsup + w(e) mean_v sum_c (p_student - p_teacher)^2 on unlabelled patches (eq. 1)."""

    Config = MeanTeacherConfig
    info = MethodInfo(
        title="Mean teacher",
        paper="Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017",
        year=2017,
        summary="the student's probabilities follow those of its running average, whose input is noisy",
    )

    def __init__(self, config: MethodConfig, context: MethodContext) -> None:
        super().__init__(config, context)
        self.settings = cast(MeanTeacherConfig, config)
        self.model = context.build_network("kaiming")
        self.teacher = EMATeacher(self.model)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        labelled, image_u = len(batch.image_l), batch.unlabelled()
        logits = self.model(torch.cat([batch.image_l, image_u])).float()
        with torch.no_grad():
            noisy = clipped_gaussian(image_u, self.settings.noise, self.settings.noise_clip)
            target = self.teacher(noisy).float().softmax(1)
        supervised = self.supervised_loss(logits[:labelled], batch.label_l)
        consistency = (logits[labelled:].softmax(1) - target).square().sum(1).mean()
        loss = supervised + self.consistency_weight(progress) * consistency
        return StepOutput(loss, {"supervised": supervised.detach(), "consistency": consistency.detach()})

    def after_step(self, progress: Progress) -> None:
        decay = decay_at(progress.step, self.settings.decay)
        self.teacher.update(self.model, decay, self.settings.copy_buffers)

    def predictor(self) -> nn.Module:
        return self.teacher.network

    def published_modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "ema_model": self.teacher.network}
