"""Mean teacher: agree with the running average of yourself."""

from __future__ import annotations

from typing import ClassVar

import torch

from duomod.methods.base import Batch, MethodConfig, MethodInfo, Progress, StepOutput
from duomod.methods.shared.noise import clipped_gaussian
from duomod.methods.skeletons import NoisyTeacherConfig, StudentAndTeacher


class MeanTeacherConfig(NoisyTeacherConfig):
    """Settings of the mean teacher; noise and weight as its medical adaptations use them (UA-MT's baseline)."""

    #: The ramp of the published 3D version lasts the whole training.
    reference: ClassVar = {**MethodConfig.reference, "rampup": 0.9999, "copy_buffers": False}


class MeanTeacher(StudentAndTeacher[MeanTeacherConfig]):
    """L = Lsup + w(e) mean_v sum_c (p_student - p_teacher)^2 on unlabelled patches.

    The teacher is the student's running average; its input has noise added. The teacher predicts.

    See docs/methods/mean_teacher.md, Equations.
    """

    Config = MeanTeacherConfig
    info = MethodInfo(
        title="Mean teacher",
        paper="Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017",
        year=2017,
        summary="the student's probabilities follow those of its running average, whose input is noisy",
    )

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        labelled, image_u = len(batch.image_l), batch.unlabelled()
        logits = self.model(torch.cat([batch.image_l, image_u])).float()
        with torch.no_grad():
            noisy = clipped_gaussian(image_u, self.config.noise, self.config.noise_clip)
            target = self.teacher(noisy).float().softmax(1)
        supervised = self.supervised_loss(logits[:labelled], batch.label_l)
        consistency = (logits[labelled:].softmax(1) - target).square().sum(1).mean()
        loss = supervised + self.consistency_weight(progress) * consistency
        return StepOutput(loss, {"supervised": supervised.detach(), "consistency": consistency.detach()})
