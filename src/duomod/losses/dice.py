"""Soft Dice losses over batch and space."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from duomod.config import AbsentClass


def one_hot(target: Tensor, num_classes: int) -> Tensor:
    """Turn class indices (B, D, H, W) into float (B, C, D, H, W) by comparison, without a temporary int64 copy."""
    classes = torch.arange(num_classes, device=target.device).view(1, -1, 1, 1, 1)
    return (target.unsqueeze(1) == classes).float()


def dice_loss(
    probabilities: Tensor, target: Tensor, weight: Tensor | None = None, absent: AbsentClass = "penalise"
) -> Tensor:
    """Multi-class soft Dice loss, background included.

    Per class, over batch and space: d_c = 2 sum(p_c y_c) / (sum(p_c + y_c) + 1e-6).

    * ``absent="constant"`` (the reference): mean over all classes of w_c (1 - d_c). A class that is absent from the
      batch adds the constant w_c and no gradient.
    * ``absent="penalise"``: classes present count as above; an absent class adds sum(stopgrad(p_c) p_c) / N instead,
      whose gradient p_c / N pushes false positives down, as in GADice. The mean is over the classes present, so that a
      crop with few organs does not shrink their loss.

    See docs/methods/README.md, Losses.

    Args:
        probabilities: (B, C, D, H, W) in [0, 1].
        target: (B, D, H, W) class indices.
        weight: (C,) factors w_c, or None for ones.
        absent: see above.
    """
    p = probabilities.float()
    classes = p.shape[1]
    y = one_hot(target, classes)
    axes = (0, 2, 3, 4)
    # Summed in the reference's order: on tiny inputs a training step amplifies a rounding difference a thousandfold.
    loss = 1 - 2 * (p * y).sum(axes) / ((p + y).sum(axes) + 1e-6)
    w = p.new_ones(classes) if weight is None else weight
    if absent == "constant":
        return (w * loss).mean()
    present = y.sum(axes) > 0
    false_positive = (p.detach() * p).sum(axes) / target.numel()
    return (w * torch.where(present, loss, false_positive)).sum() / present.sum()


def ga_dice(probabilities: Tensor, target: Tensor) -> Tensor:
    """GADice: squared denominators, absent classes pushed down by their own probability.

    See docs/methods/galoss.md, Losses.

    Args:
        probabilities: (B, C, D, H, W).
        target: (B, D, H, W) class indices.
    """
    p = probabilities.float()
    y = one_hot(target, p.shape[1])
    axes = (0, 2, 3, 4)
    truth = y.sum(axes)
    dice = 1 - (2 * (p * y).sum(axes) + 1e-10) / ((p * p).sum(axes) + truth + 1e-10)
    # N_neg is the number of voxels without the class; where it is absent that is all of them.
    absent = (p.detach() / target.numel() * p).sum(axes)
    return torch.where(truth > 0, dice, absent).mean()


def soft_dice_between(prediction: Tensor, target: Tensor) -> Tensor:
    """Soft Dice loss between two probability maps (B, C, D, H, W), background included."""
    p, y = prediction.float(), target.float()
    axes = (0, 2, 3, 4)
    return (1 - 2 * (p * y).sum(axes) / ((p + y).sum(axes) + 1e-6)).mean()


def dice_ce(
    logits: Tensor,
    target: Tensor,
    *,
    ce_weight: Tensor | None = None,
    dice_weight: Tensor | None = None,
    absent: AbsentClass = "penalise",
) -> Tensor:
    """Dice + cross-entropy in float32 (docs/methods/README.md, Losses), each with its own class weights.

    Args:
        logits: (B, C, D, H, W).
        target: (B, D, H, W) class indices.
        ce_weight: (C,) or None. The mean divides by the sum of the targets' weights.
        dice_weight: (C,) or None.
        absent: see :func:`dice_loss`.
    """
    z = logits.float()
    return functional.cross_entropy(z, target, ce_weight) + dice_loss(z.softmax(1), target, dice_weight, absent)
