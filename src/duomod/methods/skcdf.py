"""SKCDF: a decoder each for labelled and unlabelled patches, and auxiliary heads that learn from a balanced lottery."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from duomod.losses.dice import dice_loss
from duomod.methods.base import Batch, Method, MethodConfig, MethodContext, MethodInfo, Progress, StepOutput
from duomod.networks.two_paths import TwoPathNetwork


class SKCDFConfig(MethodConfig):
    """Settings of SKCDF."""

    momentum: float = Field(0.99, ge=0, lt=1, description="with which heads and decoders follow one another")
    masked: Literal["ignored", "background"] = Field(
        "ignored", description="voxels that lose the lottery: not counted, or turned into zero logits of label 0"
    )
    rarest: Literal["present", "any"] = Field(
        "present", description="the rarest class, which always wins: among those that occur, or also one that does not"
    )

    reference: ClassVar = {
        **MethodConfig.reference,
        "masked": "background",
        "rarest": "any",
        "counts_from": "first_volumes",
    }


class SKCDF(Method[SKCDFConfig]):
    """L = Lsup(z) + Lsup(z_abc, lottery) + w(e) [CE(zu, yhat) + CE(zu_abc, yhat_abc, lottery')].

    One encoder, a decoder for labelled and one for unlabelled patches, joined by attention among channels. The
    auxiliary heads (abc) learn from voxels drawn with probability min n / n_c of their class c, so that classes count
    alike; main heads follow them, and the unlabelled decoder follows the labelled one, as running averages.

    See docs/methods/skcdf.md, Equations.
    """

    Config = SKCDFConfig
    info = MethodInfo(
        title="SKCDF",
        paper="Zhang et al., A Semantic Knowledge Complementarity based Decoupling Framework for Semi-supervised"
        " Class-imbalanced Medical Image Segmentation, CVPR 2025",
        year=2025,
        summary="two decoders joined by channel attention, with auxiliary heads trained on a class-balanced lottery",
    )
    ratio: Tensor

    def __init__(self, config: SKCDFConfig, context: MethodContext) -> None:
        super().__init__(config, context)
        self.model = context.build_network("xavier", TwoPathNetwork)
        counts = context.class_counts.float()
        present = counts > 0
        rarest = torch.where(present, counts, torch.inf).min() if self.config.rarest == "present" else counts.min()
        # ir_c = min_j n_j / n_c; a class never seen always wins
        seen = rarest / (counts + 1e-8)
        self.register_buffer("ratio", torch.where(present, seen, 1.0).clamp(max=1))

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        labelled, image_u, label = len(batch.image_l), batch.unlabelled(), batch.label_l
        z, z_abc = (t.float() for t in self.model.labelled(torch.cat([batch.image_l, image_u]), labelled))
        won = self._lottery(self.ratio, label)
        balanced = self._masked(z_abc[:labelled], label, won, with_dice=True)
        supervised = self.supervised_loss(z[:labelled], label) + balanced
        with torch.no_grad():
            pseudo, pseudo_abc = z[labelled:].argmax(1), z_abc[labelled:].argmax(1)
            # ir'_c = 1 - (e / e_max) (1 - ir_c): the lottery sets in gradually
            ratio = 1 - min(progress.epoch / progress.max_epochs, 1.0) * (1 - self.ratio)
            won_u = self._lottery(ratio, pseudo_abc)
        zu, zu_abc = (t.float() for t in self.model.unlabelled(image_u))
        unsupervised = functional.cross_entropy(zu, pseudo) + self._masked(zu_abc, pseudo_abc, won_u, with_dice=False)
        loss = supervised + self.consistency_weight(progress) * unsupervised
        parts = {"supervised": supervised.detach(), "unsupervised": unsupervised.detach(), "kept": won.float().mean()}
        return StepOutput(loss, parts)

    @staticmethod
    def _lottery(ratio: Tensor, label: Tensor) -> Tensor:
        """M ~ Bernoulli(ir_label): bool (B, D, H, W)."""
        return torch.rand(label.shape, device=label.device) < ratio[label]

    def _masked(self, logits: Tensor, label: Tensor, won: Tensor, with_dice: bool) -> Tensor:
        """Cross-entropy, and Dice where asked for, over the voxels that won."""
        if self.config.masked == "background":
            logits, label = logits * won.unsqueeze(1), label * won
            loss = functional.cross_entropy(logits, label)
            return loss + dice_loss(logits.softmax(1), label, absent=self.config.absent_class) if with_dice else loss
        # Where nothing won, everything counts: a mean over no voxel has no value.
        won = won | ~won.any()
        loss = (functional.cross_entropy(logits, label, reduction="none") * won).sum() / won.sum()
        if not with_dice:
            return loss
        # class C is none of the classes, so such a voxel is in no class's truth
        nowhere = torch.where(won, label, logits.shape[1])
        return loss + dice_loss(logits.softmax(1) * won.unsqueeze(1), nowhere, absent=self.config.absent_class)

    @torch.no_grad()
    def after_step(self, progress: Progress) -> None:
        """The main heads follow the auxiliary ones; the unlabelled decoder, also trained, follows the labelled one."""
        for follower, leader in self.model.followers():
            followers: list[Tensor] = list(follower.parameters())
            torch._foreach_lerp_(followers, list(leader.parameters()), 1 - self.config.momentum)

    def predictor(self) -> nn.Module:
        return self.model

    def published_modules(self) -> dict[str, nn.Module]:
        return {"A": self.model, "B": self.model}
