"""Connected components on the device, for pseudo-labels: no copy to the host, no wait for it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from duomod.losses.dice import one_hot


def remove_small_components(label: Tensor, num_classes: int, share: float, shrink: int = 4) -> Tensor:
    """Turn foreground components that are small beside the largest of their class into background.

    Components are found on a grid coarser by ``shrink``, by letting the largest voxel number flow through each class;
    the number of rounds is fixed, so that nothing has to be read back. Parts less than ``shrink`` voxels apart may
    count as one.

    Args:
        label: (B, D, H, W) class indices.
        num_classes: C, background included.
        share: A component stays if it has at least this share of the voxels of the largest one of its class and patch.
            1 keeps the largest only; lower values keep both sides of a paired organ that is one class.
        shrink: How much coarser the grid is.
    """
    organs = one_hot(label, num_classes)[:, 1:]
    filled = functional.avg_pool3d(organs, shrink, ceil_mode=True, divisor_override=1)
    coarse = (filled > 0).float()
    batch, classes, d, h, w = coarse.shape
    voxels = d * h * w
    # Numbers start at 1 in every (patch, class) map; 0 is "not this class". Exact in float32 below 2^24 voxels.
    names = torch.arange(1, voxels + 1, device=label.device, dtype=torch.float32).view(1, 1, d, h, w) * coarse
    for _ in range(d + h + w):
        names = functional.max_pool3d(names, 3, stride=1, padding=1) * coarse
    flat = names.view(batch, classes, voxels).long()
    sizes = torch.zeros((batch, classes, voxels + 1), device=label.device)
    sizes.scatter_add_(2, flat, filled.view(batch, classes, voxels))
    sizes[:, :, 0] = 0
    largest = sizes.amax(2, keepdim=True)
    keep = (sizes.gather(2, flat) >= share * largest).view(batch, classes, d, h, w) & (coarse > 0)
    kept = keep.float().repeat_interleave(shrink, 2).repeat_interleave(shrink, 3).repeat_interleave(shrink, 4)
    kept = kept[:, :, : label.shape[1], : label.shape[2], : label.shape[3]]
    return torch.where((organs * kept).sum(1) > 0, label, 0)
