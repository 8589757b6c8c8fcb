"""DyCON: uncertainty-aware consistency with a teacher, and focal contrastive learning of bottleneck features."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from duomod.losses.dice import one_hot
from duomod.losses.ramps import sigmoid_rampup
from duomod.methods.base import Batch, MethodConfig, MethodContext, MethodInfo, Progress, StepOutput, epochs
from duomod.methods.shared.noise import clipped_gaussian
from duomod.methods.shared.teacher import EMATeacher
from duomod.methods.skeletons import ClockedTeacherConfig, StudentAndTeacher
from duomod.networks.projected import ProjectedNetwork


class DyCONConfig(ClockedTeacherConfig):
    """Settings of DyCON. The published code clips the gradient to norm 1: the training's ``optim.clip_gradient``."""

    consistency: Literal["probabilities", "softmax_twice"] = Field(
        "probabilities", description="softmax_twice: probabilities go through another softmax before they are compared"
    )
    auxiliary: float = Field(0.5, ge=0, description="weight of the uncertainty and contrastive losses")
    beta_first: float = Field(1.0, gt=0, description="weight of entropy at the start")
    beta_last: float = Field(0.1, gt=0, description="weight of entropy at the end")
    temperature: float = Field(0.8, gt=0, description="divides the similarities of the contrastive terms")
    focus: float = Field(1.0, ge=0, description="gamma: how much pairs that are already close count less")
    column_maximum: bool = Field(
        False, description="subtract each column's largest similarity, as the published code does"
    )
    hard_first: float = Field(0.3, description="similarity above which another class's teacher feature is pushed away")
    hard_last: float = Field(0.5, description="the same at the end")
    hard_rampup: float = Field(
        0.9999, ge=0, description="length of that ramp; below 1: a share of training, else epochs"
    )

    reference: ClassVar = {
        **MethodConfig.reference,
        "clock": "epoch",
        "copy_buffers": False,
        "consistency": "softmax_twice",
        "column_maximum": True,
        "hard_rampup": 1500,
    }
    reference_training: ClassVar = {"optim": {"clip_gradient": 1.0}}


class DyCON(StudentAndTeacher[DyCONConfig]):
    """L = Lsup + w(e) (p_S - p_T)^2 + u (UnCL + FeCL).

    UnCL: the squared difference of student and teacher, divided by e^(beta H) of both entropies, plus the entropies.
    FeCL: embeddings of patches of one class attract each other, those of different classes are pushed apart. The
    teacher predicts.

    See docs/methods/dycon.md, Equations.
    """

    Config = DyCONConfig
    info = MethodInfo(
        title="DyCON",
        paper="Assefa et al., DyCON: Dynamic Uncertainty-aware Consistency and Contrastive Learning for Semi-supervised"
        " Medical Image Segmentation, CVPR 2025",
        year=2025,
        summary="mean teacher with entropy-weighted consistency and contrastive learning of patch features",
    )

    model: ProjectedNetwork
    teacher: EMATeacher[ProjectedNetwork]

    def student(self, context: MethodContext) -> ProjectedNetwork:
        return context.build_network("kaiming", ProjectedNetwork)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        settings, labelled = self.config, len(batch.image_l)
        x = torch.cat([batch.image_l, batch.unlabelled()])
        z, features = (t.float() for t in self.model.embed(x))
        with torch.no_grad():
            noisy = clipped_gaussian(x, settings.noise, settings.noise_clip)
            zt, teacher_features = (t.float() for t in self.teacher.network.embed(noisy))
            pt = zt.softmax(1)
            label = torch.cat([batch.label_l, zt[labelled:].argmax(1)])
        p = z.softmax(1)
        supervised = self.supervised_loss(z[:labelled], batch.label_l)
        ps, target = p[labelled:], pt[labelled:]
        if settings.consistency == "softmax_twice":
            ps, target = ps.softmax(1), target.softmax(1)
        consistency = (ps - target).square().mean()
        # beta(e) = beta_first (beta_last / beta_first)^(e / e_max)
        beta = settings.beta_first * (settings.beta_last / settings.beta_first) ** (
            progress.epoch / progress.max_epochs
        )
        uncertainty = uncertainty_consistency(p, pt, beta)
        ramp = sigmoid_rampup(progress.epoch, epochs(settings.hard_rampup, progress))
        hard = settings.hard_first + (settings.hard_last - settings.hard_first) * ramp
        contrast = self._contrast(features, teacher_features, label, hard)
        loss = supervised + self.consistency_weight(progress) * consistency
        loss = loss + settings.auxiliary * (contrast + uncertainty)
        parts = {"supervised": supervised, "consistency": consistency, "uncertainty": uncertainty, "contrast": contrast}
        return StepOutput(loss, {name: value.detach() for name, value in parts.items()})

    def _contrast(self, features: Tensor, teacher: Tensor, label: Tensor, hard: float) -> Tensor:
        """FeCL and the cross-teacher term, in float32: similarities enter exponentials."""
        device = features.device.type if features.device.type != "meta" else "cpu"
        with torch.autocast(device, enabled=False):
            # a patch's class is the most frequent one among its voxels
            d, h, w = features.shape[2:]
            shares = functional.adaptive_avg_pool3d(one_hot(label, self.num_classes), (d, h, w))
            classes = shares.argmax(1).flatten(1)
            f, t = (functional.normalize(v.flatten(2).transpose(1, 2), dim=-1, eps=1e-8) for v in (features, teacher))
            same = (classes.unsqueeze(2) == classes.unsqueeze(1)).float()
            similarity = f @ f.transpose(1, 2) / self.config.temperature
            focal = focal_contrast(similarity, same, self.config.focus, self.config.column_maximum)
            # -ln(1 - sim) for pairs of different class that are closer than ``hard``
            cross = f @ t.transpose(1, 2)
            pushed = (1 - same) * (cross > hard)
            penalty = -(1 - cross.clamp(max=0.999999)).log()
            return focal + (penalty * pushed).sum() / pushed.sum().clamp(min=1)


def uncertainty_consistency(p: Tensor, pt: Tensor, beta: float) -> Tensor:
    """UnCL: mean_v [sum_c (p - pt)^2 / (e^(beta H) + e^(beta Ht)) + beta (H + Ht)], H the entropy.

    Args:
        p: (B, C, D, H, W) the student's probabilities.
        pt: the teacher's.
        beta: weight of the entropy.
    """
    h, ht = (-(q * (q + 1e-6).log()).sum(1) for q in (p, pt))
    difference = (p - pt).square().sum(1) / ((beta * h).exp() + (beta * ht).exp())
    return (difference + beta * (h + ht)).mean()


def focal_contrast(similarity: Tensor, same: Tensor, focus: float, column_maximum: bool) -> Tensor:
    """FeCL: mean_i sum_{j pos} -ln p_ij (1 - p_ij)^gamma / #pos, p_ij = e^Sij / (e^Sij + sum_{negatives n} e^Sin).

    Args:
        similarity: (B, N, N) cosine over temperature.
        same: (B, N, N) 1 where two patches have one class.
        focus: gamma.
        column_maximum: Subtract the largest entry of each column first.
    """
    others = 1 - torch.eye(similarity.shape[1], device=similarity.device)
    similarity = similarity * others
    if column_maximum:
        similarity = similarity - similarity.detach().amax(1, keepdim=True)
    e = similarity.exp()
    p = e / (e + (e * (1 - same)).sum(-1, keepdim=True) + 1e-18)
    positive = same * others
    loss = -(p + 1e-18).log() * (1 - p).clamp(min=1e-6) ** focus * positive
    return (loss.sum(-1) / positive.sum(-1).clamp(min=1)).mean()
