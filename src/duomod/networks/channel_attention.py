"""Attention among the channels of a map (docs/methods/skcdf.md, Network)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from duomod.networks.base import crop

#: The bottleneck map of a 64x128x128 patch, for which the global block's kernel is made.
REFERENCE_MAP = (4, 8, 8)


class ChannelAttention(nn.Module):
    """Attention among channels: the score of two channels is the product of their tokens, summed over positions.

    Args:
        channels: C.
        heads: Number of heads.
        dropout: Of the attention and of the output.
        heads_first: Order in which self-attention reads the q, k, v features: (heads, C), or (C, heads).
    """

    def __init__(self, channels: int, heads: int, dropout: float, heads_first: bool) -> None:
        super().__init__()
        self.heads, self.heads_first = heads, heads_first
        self.q, self.k, self.v = (nn.Linear(channels, channels * heads, bias=False) for _ in range(3))
        self.out = nn.Linear(channels * heads, channels, bias=False)
        for linear in (self.q, self.k, self.v, self.out):
            nn.init.xavier_uniform_(linear.weight)
        self.dropout = nn.Dropout(dropout)

    def itself(self, x: Tensor) -> Tensor:
        """Every sample attends to itself, head by head: (B, S, N, C) to the same; S sites of N positions."""
        q, k, v = (self._split(linear(x)) for linear in (self.q, self.k, self.v))
        # the features leave in the order (C, heads), whatever the order they were read in
        mixed = self._attend(q, k, v).movedim(2, -1).flatten(-2)
        return cast(Tensor, self.dropout(self.out(mixed)))

    def across(self, x: Tensor, others: Tensor) -> Tensor:
        """Every sample of ``x`` (B, S, N, C) attends to the channels of all samples of ``others`` (B', S, N, C)."""
        q, k, v = self.q(x), self.k(others), self.v(others)
        # all samples' channels side by side: (1, S, N, B' heads C)
        k, v = (t.permute(1, 2, 0, 3).flatten(2).unsqueeze(0) for t in (k, v))
        return cast(Tensor, self.dropout(self.out(self._attend(q, k, v))))

    def _split(self, t: Tensor) -> Tensor:
        """(B, S, N, heads C) to (B, S, heads, N, C)."""
        b, s, n, _ = t.shape
        if self.heads_first:
            return t.reshape(b, s, n, self.heads, -1).permute(0, 1, 3, 2, 4)
        return t.reshape(b, s, n, -1, self.heads).permute(0, 1, 4, 2, 3)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(norm(q^T k)) v^T over the last two axes (N, J); no 1/sqrt(d), the norm sets the scale."""
        scores = q.transpose(-1, -2) @ k
        scores = functional.layer_norm(scores, scores.shape[-2:])
        attention: Tensor = self.dropout(scores.softmax(-1))
        return (attention @ v.transpose(-1, -2)).transpose(-1, -2)


class _Tokens(nn.Module):
    """Turns each channel map, alone, into tokens by one convolution whose kernel does not overlap."""

    def __init__(self, positions: int, kernel: Sequence[int]) -> None:
        super().__init__()
        size = (kernel[0], kernel[1], kernel[2])
        self.proj = nn.Conv3d(1, positions, size, stride=size)
        # Part of the published weights, never used: kept so that they load, and not trained.
        self.map_in = nn.Sequential(nn.Conv3d(1, positions, size, stride=size), nn.GELU()).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) to (B, S, N, C): S sites of N positions, each channel's own."""
        b, c = x.shape[:2]
        tokens = self.proj(x.reshape(b * c, 1, *x.shape[2:]))
        return cast(Tensor, tokens.flatten(2).unflatten(0, (b, c)).permute(0, 3, 2, 1))


class AttentionBlock(nn.Module):
    """Tokens, norm, attention, residual, norm, back to a map, 1x1x1 convolution and GELU: (B, C, D, H, W) to the same.

    Args:
        channels: C.
        kernel: What one token site covers; it has as many positions as voxels.
        whole: The kernel covers the whole map: maps of another size are resampled to it and back (trilinear).
            Otherwise maps are padded to multiples of the kernel.
        heads: Attention heads.
        dropout: Of the attention.
    """

    def __init__(self, channels: int, kernel: Sequence[int], whole: bool, heads: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.kernel, self.whole = tuple(kernel), whole
        positions = kernel[0] * kernel[1] * kernel[2]
        self.token_learner = _Tokens(positions, kernel)
        self.attn_norm = nn.LayerNorm(channels, eps=1e-6)
        self.attn = ChannelAttention(channels, heads, dropout, heads_first=whole)
        self.ffn_norm = nn.LayerNorm(channels, eps=1e-6)
        self.map_out = nn.Sequential(nn.Conv3d(channels, channels, 1), nn.GELU())

    def forward(self, x: Tensor, labelled: int | None) -> Tensor:
        """With ``labelled`` given, the first so many samples and the rest attend to each other; else each to itself."""
        size = x.shape[2:]
        fitted = self._fit(x)
        tokens = self.token_learner(fitted)
        normed = self.attn_norm(tokens)
        if labelled is None:
            mixed = self.attn.itself(normed)
        else:
            known, unknown = normed[:labelled], normed[labelled:].detach()
            mixed = torch.cat([self.attn.across(known, unknown), self.attn.across(unknown, known)])
        y = self.map_out(self._to_map(self.ffn_norm(mixed + tokens), fitted.shape[2:]))
        if not self.whole or y.shape[2:] == size:
            return crop(y, x)
        return functional.interpolate(y, size=size, mode="trilinear", align_corners=False)

    def _fit(self, x: Tensor) -> Tensor:
        if x.shape[2:] == self.kernel:
            return x
        if self.whole:
            return functional.interpolate(x, size=self.kernel, mode="trilinear", align_corners=False)
        pairs = zip(reversed(x.shape[2:]), reversed(self.kernel), strict=True)
        return functional.pad(x, [p for length, step in pairs for p in (0, -length % step)])

    def _to_map(self, tokens: Tensor, size: Sequence[int]) -> Tensor:
        """(B, S, N, C) to (B, C, D, H, W): position n of site s is voxel n of its box."""
        (kd, kh, kw), (d, h, w) = self.kernel, size
        b, c = len(tokens), tokens.shape[-1]
        boxes = tokens.reshape(b, d // kd, h // kh, w // kw, kd, kh, kw, c)
        return boxes.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(b, c, d, h, w)
