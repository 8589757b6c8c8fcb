"""Supervised only: what the labelled scans alone can do. Every other method is judged against it."""

from __future__ import annotations

from torch import nn

from duomod.methods.base import Batch, Method, MethodConfig, MethodContext, MethodInfo, Progress, StepOutput


class Supervised(Method):
    """L = Lsup(z, y): one network, Dice + cross-entropy on the labelled patches.

    See docs/methods/supervised.md, Equations.
    """

    info = MethodInfo(
        title="Supervised only",
        paper="Milletari et al., V-Net, 3DV 2016 (network); Dice + cross-entropy",
        year=2016,
        summary="labelled scans only; the baseline of every comparison",
    )
    uses_unlabelled = False

    def __init__(self, config: MethodConfig, context: MethodContext) -> None:
        super().__init__(config, context)
        self.model = context.build_network("kaiming")

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        loss = self.supervised_loss(self.model(batch.image_l), batch.label_l)
        return StepOutput(loss, {"supervised": loss.detach()})

    def predictor(self) -> nn.Module:
        return self.model

    def published_modules(self) -> dict[str, nn.Module]:
        return {"model": self.model}
