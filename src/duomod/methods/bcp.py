"""BCP: copy boxes of labelled patches into unlabelled ones and the other way round."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from duomod.losses.dice import one_hot
from duomod.methods.base import Batch, MethodInfo, Progress, StepOutput, epochs
from duomod.methods.shared.components import remove_small_components
from duomod.methods.shared.mixing import random_boxes
from duomod.methods.skeletons import StudentAndTeacher, TeacherConfig


class BCPConfig(TeacherConfig):
    """Settings of BCP. ``consistency_weight`` is the weight of pseudo-labelled voxels; the paper ramps nothing."""

    consistency_weight: float = Field(0.5, ge=0, description="weight of voxels that come from an unlabelled patch")
    rampup: float = Field(0.0, ge=0, description="length of its ramp-up; below 1: a share of training, else epochs")
    box: float = Field(2 / 3, gt=0, lt=1, description="edge of the copied box as a share of the patch's")
    pretraining: float = Field(
        0.12, ge=0, description="copy-paste among labelled patches first; below 1: a share of training, else epochs"
    )
    decay: float = Field(0.99, ge=0, lt=1, description="momentum of the teacher that makes the pseudo-labels")
    component_share: float = Field(
        0.3, ge=0, le=1, description="pseudo-labels keep components of at least this share of the class's largest one"
    )

    reference: ClassVar = {"absent_class": "constant", "copy_buffers": False, "component_share": 1.0}


class BCP(StudentAndTeacher[BCPConfig]):
    """L = D(x_l M + x_u (1 - M)) + D(x_u M + x_l (1 - M)), M 0 in a random box.

    D is (Dice + cross-entropy) / 2 against labels mixed alike; voxels from unlabelled patches have the teacher's
    pseudo-labels, without small components, and the weight ``consistency_weight``. First comes a pre-training that
    pastes labelled patches into each other.

    See docs/methods/bcp.md, Equations.
    """

    Config = BCPConfig
    info = MethodInfo(
        title="BCP",
        paper="Bai et al., Bidirectional Copy-Paste for Semi-Supervised Medical Image Segmentation, CVPR 2023",
        year=2023,
        summary="boxes are pasted between labelled and unlabelled patches; a teacher labels the unlabelled voxels",
    )

    def _pretraining(self, progress: Progress) -> bool:
        return progress.epoch < epochs(self.config.pretraining, progress)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        image, label = batch.image_l, batch.label_l
        box = random_boxes(image, self.config.box, self.config.box)
        inside = box.squeeze(1)
        if self._pretraining(progress):
            mixed, target = torch.where(box, image.roll(1, 0), image), torch.where(inside, label.roll(1, 0), label)
            loss = 0.5 * self.supervised_loss(self.model(mixed), target)
            return StepOutput(loss, {"supervised": loss.detach()})
        image_u = _matched(batch.unlabelled(), len(image))
        with torch.no_grad():
            pseudo = self.teacher(image_u).float().argmax(1)
            pseudo = remove_small_components(pseudo, self.num_classes, self.config.component_share)
        # The two directions take different partners where the batch has more than one patch.
        inward, outward = torch.where(box, image_u, image), torch.where(box, image.roll(1, 0), image_u)
        z_in, z_out = self.model(torch.cat([inward, outward])).float().chunk(2)
        alpha = self.consistency_weight(progress)
        truth = self._masked(z_in, label, ~inside) + self._masked(z_out, label.roll(1, 0), inside)
        copied = self._masked(z_in, pseudo, inside) + self._masked(z_out, pseudo, ~inside)
        loss = truth + alpha * copied
        return StepOutput(loss, {"supervised": truth.detach(), "pseudo": copied.detach()})

    def _masked(self, logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """(Dice + cross-entropy) / 2 over the voxels of ``mask`` (B, D, H, W)."""
        ce_weight, dice_weight = self.switched_on_weights()
        m = mask.float()
        weights = m if ce_weight is None else m * ce_weight[target]
        each = functional.cross_entropy(logits, target, reduction="none")
        ce = (each * weights).sum() / weights.sum().clamp(min=1e-6)
        p, y = logits.softmax(1) * m.unsqueeze(1), one_hot(target, self.num_classes) * m.unsqueeze(1)
        axes = (0, 2, 3, 4)
        w = logits.new_ones(self.num_classes) if dice_weight is None else dice_weight
        dice = w * (1 - 2 * (p * y).sum(axes) / ((p + y).sum(axes) + 1e-6))
        if self.config.absent_class == "constant":
            return (ce + dice.mean()) / 2
        present = y.sum(axes) > 0
        pushed = w * (p.detach() * p).sum(axes) / m.sum().clamp(min=1)
        return (ce + torch.where(present, dice, pushed).sum() / present.sum().clamp(min=1)) / 2

    def after_step(self, progress: Progress) -> None:
        # Until pre-training ends the teacher is the student, so that both start the second stage alike.
        decay = 0.0 if self._pretraining(progress) else self.config.decay
        self.teacher.update(self.model, decay, self.config.copy_buffers or decay == 0.0)

    def predictor(self) -> nn.Module:
        return self.model


def _matched(image: Tensor, count: int) -> Tensor:
    """``count`` patches: the first ones, or all of them over and over."""
    return image.repeat(-(-count // len(image)), 1, 1, 1, 1)[:count]
