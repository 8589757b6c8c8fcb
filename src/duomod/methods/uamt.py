"""UA-MT: the student follows its teacher where the teacher is sure."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from duomod.losses.ramps import sigmoid_rampup
from duomod.methods.base import Batch, Method, MethodConfig, MethodContext, MethodInfo, Progress, StepOutput
from duomod.methods.shared.noise import clipped_gaussian
from duomod.methods.shared.teacher import EMATeacher, decay_at


class UAMTConfig(MethodConfig):
    """Settings of UA-MT."""

    decay: float = Field(0.99, ge=0, lt=1, description="largest momentum of the teacher")
    clock: Literal["step", "epoch"] = Field("step", description="what the teacher's momentum counts")
    copy_buffers: bool = Field(True, description="the teacher takes over the batch-norm statistics")
    passes: int = Field(8, ge=1, description="noisy passes of the teacher whose mean is the target")
    noise: float = Field(0.1, ge=0, description="standard deviation of their input noise")
    noise_clip: float = Field(0.2, ge=0, description="largest size of that noise")
    target: Literal["probabilities", "softmax_twice"] = Field(
        "probabilities", description="softmax_twice: the mean probability goes through another softmax"
    )
    entropy_limit: Literal["classes", "two"] = Field(
        "classes", description="largest entropy the threshold is a share of: ln C, or ln 2 whatever C is"
    )
    average_classes: bool = Field(
        True, description="divide the squared difference by C, as the paper's code does for two"
    )

    reference: ClassVar[Any] = {
        **MethodConfig.reference,
        "clock": "epoch",
        "copy_buffers": False,
        "target": "softmax_twice",
        "entropy_limit": "two",
        "average_classes": False,
    }


class UAMT(Method):
    """L = Lsup + w(e) sum_v m (p_student - pbar)^2 / sum_v m, m = [H(pbar) < threshold] (METHODS 4.13).

    pbar is the mean of the teacher's passes with noise and dropout, H its entropy. The teacher predicts.
    """

    Config = UAMTConfig
    info = MethodInfo(
        title="UA-MT",
        paper="Yu et al., Uncertainty-aware Self-ensembling Model for Semi-supervised 3D Left Atrium Segmentation,"
        " MICCAI 2019",
        year=2019,
        summary="mean teacher whose consistency counts only where the teacher's noisy passes agree",
    )

    def __init__(self, config: MethodConfig, context: MethodContext) -> None:
        super().__init__(config, context)
        self.settings = cast(UAMTConfig, config)
        self.model = context.build_network("kaiming")
        self.teacher = EMATeacher(self.model)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        labelled, image_u = len(batch.image_l), batch.unlabelled()
        logits = self.model(torch.cat([batch.image_l, image_u])).float()
        mean = self._mean_probability(image_u)
        entropy = -(mean * (mean + 1e-6).log()).sum(1, keepdim=True)
        # threshold: 3/4 of the largest entropy, growing to all of it
        limit = math.log(self.num_classes if self.settings.entropy_limit == "classes" else 2)
        share = 0.75 + 0.25 * sigmoid_rampup(progress.epoch, progress.max_epochs)
        sure = (entropy < share * limit).float()
        target = mean.softmax(1) if self.settings.target == "softmax_twice" else mean
        squared = (logits[labelled:].softmax(1) - target).square()
        squared = squared.mean(1, keepdim=True) if self.settings.average_classes else squared.sum(1, keepdim=True)
        consistency = (sure * squared).sum() / (sure.sum() + 1e-16)
        supervised = self.supervised_loss(logits[:labelled], batch.label_l)
        loss = supervised + self.consistency_weight(progress) * consistency
        parts = {"supervised": supervised.detach(), "consistency": consistency.detach(), "sure": sure.mean()}
        return StepOutput(loss, parts)

    @torch.no_grad()
    def _mean_probability(self, image: Tensor) -> Tensor:
        total = torch.zeros((), device=image.device)
        for _ in range(self.settings.passes):
            noisy = clipped_gaussian(image, self.settings.noise, self.settings.noise_clip)
            total = total + self.teacher(noisy).float().softmax(1)
        return total / self.settings.passes

    def after_step(self, progress: Progress) -> None:
        count = progress.step if self.settings.clock == "step" else progress.epoch
        self.teacher.update(self.model, decay_at(count, self.settings.decay), self.settings.copy_buffers)

    def predictor(self) -> nn.Module:
        return self.teacher.network

    def published_modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "ema_model": self.teacher.network}
