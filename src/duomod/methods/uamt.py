"""UA-MT: the student follows its teacher where the teacher is sure."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from duomod.losses.ramps import sigmoid_rampup
from duomod.methods.base import Batch, MethodConfig, MethodInfo, Progress, StepOutput
from duomod.methods.shared.noise import clipped_gaussian
from duomod.methods.skeletons import ClockedTeacherConfig, StudentAndTeacher


class UAMTConfig(ClockedTeacherConfig):
    """Settings of UA-MT."""

    passes: int = Field(8, ge=1, description="noisy passes of the teacher whose mean is the target")
    target: Literal["probabilities", "softmax_twice"] = Field(
        "probabilities", description="softmax_twice: the mean probability goes through another softmax"
    )
    entropy_limit: Literal["classes", "two"] = Field(
        "classes", description="largest entropy the threshold is a share of: ln C, or ln 2 whatever C is"
    )
    average_classes: bool = Field(
        True, description="divide the squared difference by C, as the paper's code does for two"
    )

    reference: ClassVar = {
        **MethodConfig.reference,
        "clock": "epoch",
        "copy_buffers": False,
        "target": "softmax_twice",
        "entropy_limit": "two",
        "average_classes": False,
    }


class UAMT(StudentAndTeacher[UAMTConfig]):
    """L = Lsup + w(e) sum_v m (p_student - pbar)^2 / sum_v m, m = [H(pbar) < threshold].

    pbar is the mean of the teacher's passes with noise and dropout, H its entropy. The teacher predicts.

    See docs/methods/uamt.md, Equations.
    """

    Config = UAMTConfig
    info = MethodInfo(
        title="UA-MT",
        paper="Yu et al., Uncertainty-aware Self-ensembling Model for Semi-supervised 3D Left Atrium Segmentation,"
        " MICCAI 2019",
        year=2019,
        summary="mean teacher whose consistency counts only where the teacher's noisy passes agree",
    )

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        labelled, image_u = len(batch.image_l), batch.unlabelled()
        logits = self.model(torch.cat([batch.image_l, image_u])).float()
        mean = self._mean_probability(image_u)
        entropy = -(mean * (mean + 1e-6).log()).sum(1, keepdim=True)
        # threshold: 3/4 of the largest entropy, growing to all of it
        limit = math.log(self.num_classes if self.config.entropy_limit == "classes" else 2)
        share = 0.75 + 0.25 * sigmoid_rampup(progress.epoch, progress.max_epochs)
        sure = (entropy < share * limit).float()
        target = mean.softmax(1) if self.config.target == "softmax_twice" else mean
        squared = (logits[labelled:].softmax(1) - target).square()
        squared = squared.mean(1, keepdim=True) if self.config.average_classes else squared.sum(1, keepdim=True)
        consistency = (sure * squared).sum() / (sure.sum() + 1e-16)
        supervised = self.supervised_loss(logits[:labelled], batch.label_l)
        loss = supervised + self.consistency_weight(progress) * consistency
        parts = {"supervised": supervised.detach(), "consistency": consistency.detach(), "sure": sure.mean()}
        return StepOutput(loss, parts)

    @torch.no_grad()
    def _mean_probability(self, image: Tensor) -> Tensor:
        total = torch.zeros((), device=image.device)
        for _ in range(self.config.passes):
            noisy = clipped_gaussian(image, self.config.noise, self.config.noise_clip)
            total = total + self.teacher(noisy).float().softmax(1)
        return total / self.config.passes
