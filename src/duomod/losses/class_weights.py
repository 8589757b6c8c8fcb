"""Class weights from class distributions."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_quantile(values: Tensor, mask: Tensor, q: float) -> Tensor:
    """Quantile with linear interpolation of the entries where ``mask`` holds, without a host-device synchronisation.

    Args:
        values: (N,).
        mask: (N,) bool. Where it holds nowhere the result is infinite.
        q: in [0, 1].
    """
    ordered = torch.where(mask, values, torch.inf).sort().values
    position = q * (mask.sum() - 1).clamp(min=0)
    below = position.floor().long()
    above = torch.minimum(below + 1, (mask.sum() - 1).clamp(min=0))
    # take(), because indexing with a 0-dimensional tensor reads its value on the host
    return torch.lerp(ordered.take(below), ordered.take(above), (position - below).to(values.dtype))


def rlm_weights(distribution: Tensor, floor: float = 0.2, ceiling: float = 1.0) -> tuple[Tensor, Tensor]:
    """RLM's class weights: rare classes ``ceiling``, frequent ones ``floor`` (docs/methods/duomodnet.md, RLM).

    Log-frequencies are clamped to the 5 % and 95 % quantiles of the positive foreground entries; the background gets
    the (lower) median of the foreground weights; weights are divided by their mean. All weights are one where fewer
    than two foreground classes occur or their quantiles coincide. Runs without a host-device synchronisation.

    Args:
        distribution: (C,) probabilities, background first.
        floor: Weight of the most frequent class before normalisation.
        ceiling: Weight of the rarest.

    Returns:
        Cross-entropy weights (C,) and Dice weights (C,) = min(sqrt(w), 2).
    """
    foreground = distribution[1:]
    positive = foreground > 0
    low, high = masked_quantile(foreground, positive, 0.05), masked_quantile(foreground, positive, 0.95)
    log_low, log_high = (low + 1e-8).log(), (high + 1e-8).log()
    clamped = torch.minimum(torch.maximum(foreground, low), high)
    position = ((clamped + 1e-8).log() - log_low) / (log_high - log_low + 1e-8)
    weight = floor + (ceiling - floor) * (1 - position)
    median = weight.median()
    weight = torch.cat([median[None], weight])
    weight = torch.minimum(weight, 8 * median)
    weight = weight / weight.mean()
    usable = (positive.sum() >= 2) & (high - low >= 1e-8)
    weight = torch.where(usable, weight, torch.ones_like(weight))
    return weight, weight.sqrt().clamp(max=2.0)


def descending_ranks(values: Tensor) -> Tensor:
    """Rank of each entry, the largest first: 0 .. N-1. Ties keep their order."""
    order = values.argsort(descending=True, stable=True)
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


def hard_dice(predicted: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Dice of two label maps per class over the whole batch, background included, smooth 1e-8.

    A class in neither map gets 0.5. See docs/methods/dhc.md, DiffDW.

    Args:
        predicted: (B, D, H, W) class indices.
        target: the same.
        num_classes: C.

    Returns:
        (C,) float32.
    """
    p, y = predicted.flatten(), target.flatten()
    zeros = torch.zeros(num_classes, device=p.device)
    both = zeros.scatter_add(0, p, (p == y).float())
    ones = torch.ones_like(p, dtype=torch.float32)
    either = zeros.scatter_add(0, p, ones) + zeros.scatter_add(0, y, ones)
    return (2 * both + 1e-8) / (either + 1e-8 + 1e-8)


def learning_signals(dice: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """What DiffDW calls learned and unlearned in a step: d+ ln(D/D') and d- ln(D/D'), d = D - D'; each (C,)."""
    change, ratio = dice - before, (dice / before).log()
    return change.clamp(min=0) * ratio, change.clamp(max=0) * ratio


def difficulty_weights(learned: Tensor, unlearned: Tensor, missing: Tensor) -> Tensor:
    """w_c = C v_c / max v, v = ((unlearned + e) / (learned + e))^(1/5) missing, e = 1e-8 (docs/methods/dhc.md, DiffDW).

    Args:
        learned: (C,) running mean of the learned signal.
        unlearned: (C,) that of the unlearned one.
        missing: (C,) that of 1 - Dice.
    """
    difficulty = ((unlearned + 1e-8) / (learned + 1e-8)) ** (1 / 5) * missing
    return len(difficulty) * difficulty / difficulty.max()
