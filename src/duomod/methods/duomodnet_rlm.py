"""DuoMod-Net without feature modulation: RLM alone, to see what each half does."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from duomod.methods.base import MethodInfo
from duomod.methods.duomodnet import DuoModNet, DuoModNetConfig
from duomod.methods.shared.class_ranks import Direction


class DuoModNetRLMConfig(DuoModNetConfig):
    """Settings of DuoMod-Net with DAFR switched off."""

    direction: Direction = Field("none", description="which predicted classes DAFR expands")

    reference: ClassVar = {**DuoModNetConfig.reference, "direction": "none"}


class DuoModNetRLM(DuoModNet):
    """L = Lsup_w(A) + Lsup_w(B) + w(e) [CE_w(A, argmax B) + CE_w(B, argmax A)].

    RLM's class weights w on cross pseudo-supervision; features stay as they are.

    See docs/methods/duomodnet_rlm.md, Equations.
    """

    Config = DuoModNetRLMConfig
    accepts_class_weights = False
    info = MethodInfo(
        title="DuoMod-Net (RLM only)",
        paper="DuoMod-Net (reference implementation WayneBo98/DuoMod-Net), ablation without DAFR",
        year=2025,
        summary="CPS with losses re-weighted by class distribution; features as they are",
    )
