"""DuoMod-Net without re-weighting: DAFR alone, to see what each half does."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from duomod.methods.base import MethodInfo
from duomod.methods.duomodnet import DuoModNet, DuoModNetConfig


class DuoModNetCEConfig(DuoModNetConfig):
    """Settings of DuoMod-Net with plain losses. RLM's distribution is still followed: DAFR ranks the classes by it."""

    rlm: bool = Field(False, description="re-weight the losses by the class distribution")

    reference: ClassVar = {**DuoModNetConfig.reference, "rlm_floor": 0.05, "strength": 1.0}


class DuoModNetCE(DuoModNet):
    """L = Lsup(A) + Lsup(B) + w(e) [CE(A, argmax B) + CE(B, argmax A)].

    DAFR's expanded features on unweighted cross pseudo-supervision.

    See docs/methods/duomodnet_ce.md, Equations.
    """

    Config = DuoModNetCEConfig
    info = MethodInfo(
        title="DuoMod-Net (DAFR only)",
        paper="DuoMod-Net (reference implementation WayneBo98/DuoMod-Net), ablation without RLM",
        year=2025,
        summary="CPS whose features are expanded where the networks disagree; losses unweighted",
    )
