"""Class weights that any method can switch on: rarer classes weigh more in the supervised losses.

The weights follow the class distribution that the method itself predicts on unlabelled patches. They are kept here,
outside the methods: every few steps the method's predictor looks at the step's unlabelled patches in eval mode. No
method has to know of it, and a plug-in gets it for nothing. The cost is one forward pass of the predictor in
``INTERVAL`` steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from duomod.config import WeightRule
from duomod.losses.class_weights import distribution_weights, rlm_weights

#: Steps between two looks at the predictions.
INTERVAL = 10

#: Momentum per step of the running distribution (RLM's and DistDW's alike).
MOMENTUM = 0.99


class ClassWeights(nn.Module):
    """Running class distribution and the loss weights that follow from it.

    See docs/methods/README.md, Class weights for any method.

    Args:
        rule: ``rlm``: shares of the mean probability, RLM's weights with floor 0.2. ``dhc``: shares of the
            hard predictions, DistDW weights (the most frequent class gets 0).
        initial: (C,) the labelled volumes' class shares.
    """

    distribution: Tensor

    def __init__(self, rule: WeightRule, initial: Tensor) -> None:
        super().__init__()
        self.rule = rule
        self.register_buffer("distribution", initial.clone().float())

    @torch.no_grad()
    def update(self, probabilities: Tensor, momentum: float) -> None:
        """Move the distribution towards that of predictions (B, C, D, H, W); ``momentum`` weighs the past."""
        if self.rule == "rlm":
            share = probabilities.mean(dim=(0, 2, 3, 4))
        else:
            hard = probabilities.argmax(1).flatten()
            share = torch.zeros_like(self.distribution).scatter_add_(
                0, hard, torch.ones_like(hard, dtype=self.distribution.dtype)
            ) / len(hard)
        self.distribution.lerp_(share.to(self.distribution.dtype), 1 - momentum)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Cross-entropy and Dice weights, each (C,)."""
        if self.rule == "rlm":
            return rlm_weights(self.distribution)
        weight = distribution_weights(self.distribution)
        return weight, weight


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode, and every part of it back into its own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@torch.no_grad()
def follow_predictions(weights: ClassWeights, predictor: nn.Module, image_u: Tensor | None, step: int) -> None:
    """Every :data:`INTERVAL` steps, update class weights with what the predictor sees in unlabelled patches.

    Args:
        weights: Updated in place. Without unlabelled patches they stay those of the labelled volumes.
        predictor: A method's predictor.
        image_u: (B, 1, D, H, W) or None.
        step: Of the training, from 0.
    """
    if image_u is None or step % INTERVAL != 0:
        return
    with evaluating(predictor):
        output = predictor(image_u).float()
    probabilities = output if getattr(predictor, "outputs_probabilities", False) else output.softmax(1)
    weights.update(probabilities, MOMENTUM**INTERVAL)
