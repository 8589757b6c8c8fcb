"""CReST: pseudo-labels of rare classes are trusted more often than those of frequent ones."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from duomod.methods.base import MethodInfo
from duomod.methods.skeletons import RebalancedConfig, RebalancedCPS


class CReSTConfig(RebalancedConfig):
    """Settings of CReST."""

    power: float = Field(1 / 3, ge=0, description="alpha of the sampling rate; 0: every class alike")

    reference: ClassVar = {**RebalancedConfig.reference}


class CReST(RebalancedCPS[CReSTConfig]):
    """CPS whose pseudo-labels count by mu_c = (n_{C+1-r(c)} / n_1)^alpha, r(c) the rank by frequency.

    The l-th most frequent class gets the rate of the l-th rarest (eq. 1), so the rarest counts fully. The paper draws
    pseudo-labels with probability mu_c; over voxels its expectation is a weight.

    See docs/methods/crest.md, Equations.
    """

    Config = CReSTConfig
    info = MethodInfo(
        title="CReST",
        paper="Wei et al., CReST: A Class-Rebalancing Self-Training Framework, CVPR 2021;"
        " on cross pseudo-supervision as in Wang and Li (DHC), MICCAI 2023",
        year=2021,
        summary="CPS whose pseudo-labels count more the rarer their class is",
    )

    def class_weights(self, counts: Tensor) -> Tensor:
        order = counts.argsort(descending=True, stable=True)
        rate = ((counts + 1e-8) / (counts.max() + 1e-8)) ** self.config.power
        # the l-th most frequent class takes the rate of the l-th rarest
        return torch.empty_like(rate).scatter_(0, order, rate[order].flip(0))
