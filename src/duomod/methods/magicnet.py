"""MagicNet: cut patches into cubes like a magic cube, mix them across the batch, and recover them."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from duomod.losses.dice import dice_loss
from duomod.methods.base import Batch, MethodConfig, MethodContext, MethodInfo, Progress, StepOutput
from duomod.methods.shared.mixing import cube_grid, exchange, from_cubes, to_cubes
from duomod.methods.shared.noise import clipped_gaussian
from duomod.methods.skeletons import NoisyTeacherConfig, StudentAndTeacher
from duomod.networks.base import crop


class MagicNetConfig(NoisyTeacherConfig):
    """Settings of MagicNet. 2 x 4 x 4 cubes of a 64 x 128 x 128 patch have the paper's best edge, 32 voxels."""

    cubes: tuple[int, int, int] = Field((2, 4, 4), description="cubes per axis (z, y, x); fewer where they do not fit")
    location_weight: float = Field(0.1, ge=0, description="weight of the cube location task")
    blend_after: int = Field(100, ge=0, description="steps before pseudo-labels are blended with the cubes' own")
    class_momentum: float = Field(0.95, ge=0, lt=1, description="of the class distribution that steers the blending")

    #: The published ramp lasts the whole training.
    reference: ClassVar = {**MethodConfig.reference, "rampup": 0.9999, "copy_buffers": False}


class MagicNet(StudentAndTeacher[MagicNetConfig]):
    """L = [Lsup(z) + Dice(exchanged) + Dice(alone)] / 4 + l location + w(e) Dice(exchanged, yhat).

    Patches are cut into cubes. Exchanged: each cube is seen inside another patch of the batch and its features come
    home. Alone: each is seen by itself, and a classifier tells where it belongs. The pseudo-labels yhat blend the
    teacher's logits with those of the cubes seen alone, more so where the teacher's class is frequent.

    See docs/methods/magicnet.md, Equations.
    """

    Config = MagicNetConfig
    info = MethodInfo(
        title="MagicNet",
        paper="Chen et al., MagicNet: Semi-Supervised Multi-Organ Segmentation via Magic-Cube Partition and Recovery,"
        " CVPR 2023",
        year=2023,
        summary="cubes exchanged between labelled and unlabelled patches; cubes seen alone tell where they belong",
    )
    distribution: Tensor

    def __init__(self, config: MagicNetConfig, context: MethodContext) -> None:
        super().__init__(config, context)
        # The paper's cube of 32 voxels gives an encoder map of 2 x 2 x 2, which the pooling below leaves as it is.
        width = 8 * self.model.widths[-1]
        self.location = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.BatchNorm1d(2 * width),
            nn.LeakyReLU(0.2),
            nn.Linear(2 * width, math.prod(self.config.cubes)),
        )
        self.register_buffer("distribution", context.class_distribution())

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        labelled, image_u = len(batch.image_l), batch.unlabelled()
        x = torch.cat([batch.image_l, image_u])
        grid = cube_grid(x.shape[2:], self.config.cubes)
        cubes = to_cubes(x, grid)
        z = self.model(x).float()
        z_cross = self._across(cubes, grid)
        z_within, location = self._within(cubes, grid)
        with torch.no_grad():
            noisy = clipped_gaussian(image_u, self.config.noise, self.config.noise_clip)
            pseudo = self._pseudo_label(self.teacher(noisy).float(), z_within[labelled:], progress)
        # (CE + Dice of the whole, the exchanged and the separate cubes) / 4, as published
        dice = sum(self._dice(each[:labelled], batch.label_l) for each in (z_cross, z_within))
        supervised = (self.supervised_loss(z[:labelled], batch.label_l) + dice) / 4
        consistency = self._dice(z_cross[labelled:], pseudo)
        loss = supervised + self.config.location_weight * location + self.consistency_weight(progress) * consistency
        parts = {"supervised": supervised, "location": location, "consistency": consistency}
        return StepOutput(loss, {name: part.detach() for name, part in parts.items()})

    def _across(self, cubes: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Logits after every cube was seen in some patch of the batch, at its location, and its features came home."""
        there = torch.rand(cubes.shape[:2], device=cubes.device).argsort(0)
        mixed = from_cubes(exchange(cubes, there), grid)
        features = to_cubes(self.model.features(mixed), grid)
        logits: Tensor = self.model.head(from_cubes(exchange(features, there.argsort(0)), grid))
        return logits.float()

    def _within(self, cubes: Tensor, grid: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """Logits from cubes seen alone, put together again, and the loss of telling each cube's location."""
        count, number = cubes.shape[:2]
        alone = cubes.flatten(0, 1)
        maps = self.model.encode(alone)
        features = crop(self.model.decode(maps), alone)
        guess = self.location(functional.adaptive_avg_pool3d(maps[-1], 2).flatten(1)).float()
        truth = torch.arange(number, device=cubes.device).repeat(count)
        whole = from_cubes(features.reshape(count, number, *features.shape[1:]), grid)
        logits: Tensor = self.model.head(whole)
        return logits.float(), functional.cross_entropy(guess, truth)

    def _pseudo_label(self, teacher: Tensor, alone: Tensor, progress: Progress) -> Tensor:
        """(1 - omega) teacher + omega cubes, omega = share of the teacher's class, 1 for the largest."""
        blended = teacher
        if progress.step >= self.config.blend_after:
            omega = (self.distribution / self.distribution.max().clamp(min=1e-8))[teacher.argmax(1)].unsqueeze(1)
            blended = (1 - omega) * teacher + omega * alone
        pseudo = blended.argmax(1)
        ones = torch.ones_like(pseudo, dtype=torch.float32).flatten()
        shares = torch.zeros_like(self.distribution).scatter_add_(0, pseudo.flatten(), ones) / pseudo.numel()
        self.distribution.lerp_(shares, 1 - self.config.class_momentum)
        return pseudo

    def _dice(self, logits: Tensor, target: Tensor) -> Tensor:
        return dice_loss(logits.softmax(1), target, absent=self.config.absent_class)

    def predictor(self) -> nn.Module:
        return self.model
