"""SimiS: pseudo-labels supplement each class by what it lacks to the most frequent one."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from duomod.methods.base import MethodInfo
from duomod.methods.skeletons import RebalancedConfig, RebalancedCPS


class SimiSConfig(RebalancedConfig):
    """Settings of SimiS."""

    reference: ClassVar = {**RebalancedConfig.reference, "counted": "all"}


class SimiS(RebalancedCPS[SimiSConfig]):
    """CPS whose pseudo-labels count by w_c = (n_max - n_c) / n_max.

    Each class is supplemented by what it lacks to the most frequent one, which gets none. The paper draws that share of
    the pseudo-labels of class c at random; over voxels its expectation is a weight.

    See docs/methods/simis.md, Equations.
    """

    Config = SimiSConfig
    info = MethodInfo(
        title="SimiS",
        paper="Chen et al., An Embarrassingly Simple Baseline for Imbalanced Semi-Supervised Learning, 2022"
        " (arXiv:2211.11086); on cross pseudo-supervision as in Wang and Li (DHC), MICCAI 2023",
        year=2022,
        summary="CPS whose pseudo-labels supplement each class by what it lacks to the most frequent",
    )

    def class_weights(self, counts: Tensor) -> Tensor:
        if self.config.weighted == "all":
            # DHC's version: w_c = C (P_max - P_c) with P the class's share of all voxels
            share = (counts + 1e-8) / (counts.sum() + 1e-8)
            return len(counts) * (share.max() - share)
        return 1 - counts / counts.max().clamp(min=1)

    def initial_weights(self, counts: Tensor) -> Tensor:
        weights = self.class_weights(counts)
        if self.config.weighted == "all":
            # DHC starts from C for every class and moves one step towards the labelled volumes' weights.
            return torch.full_like(weights, len(counts)).lerp(weights, 1 - self.config.momentum)
        return weights
