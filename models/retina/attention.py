"""Attention over a past that gets coarser: fine rows, and pooled keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import LayerConfig
from ..layers.attention import Projections
from ..layers.feed_forward import FeedForward
from ..layers.norm import norm_of

_HIDDEN = torch.finfo(torch.float32).min


class Rows(NamedTuple):
    """Keys and values `[B, H, n, Dh]`, and who sees them, `[B or 1, 1, L, n]`."""

    keys: Tensor
    values: Tensor
    mask: Tensor


def pool(rows: Tensor, pooling: int) -> Tensor:
    """The means of so many keys or values each: `[B, H, n, Dh]` -> `[B, H, n // pooling, Dh]`, complete groups only."""
    batch, heads, count, width = rows.shape
    groups = count // pooling
    return rows[:, :, : groups * pooling].view(batch, heads, groups, pooling, width).mean(3)


class RetinaAttention(Projections):
    """Self-attention whose keys and values are pooled as they get older, after they are projected."""

    def forward(self, x: Tensor, poolings: Sequence[int], mask: Tensor) -> Tensor:
        """A whole sequence `[B, L, D]`; the mask `[L, n]` is of all its fine rows, then of those of each pooling."""
        query, key, value = self._project(x, None)
        keys = torch.cat([key, *(pool(key, pooling) for pooling in poolings)], 2)
        values = torch.cat([value, *(pool(value, pooling) for pooling in poolings)], 2)
        return self._merge(F.scaled_dot_product_attention(query, keys, values, attn_mask=mask))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values `[B, H, L, Dh]` of the next rows `[B, L, D]`."""
        return self._project(x, None)

    def step(self, query: Tensor, past: Sequence[Rows]) -> Tensor:
        """Attend to rows that stand apart, each query to at least one, with one softmax over all of them -> `[B, L, D]`."""
        query = query * self.head_dim**-0.5
        scores = [torch.where(rows.mask, query @ rows.keys.transpose(2, 3), _HIDDEN) for rows in past]
        shares = torch.cat(scores, 3).softmax(3)
        parts = torch.split(shares, [rows.keys.shape[2] for rows in past], dim=3)
        found = torch.zeros_like(query)
        for part, rows in zip(parts, past, strict=True):
            found = found + part @ rows.values
        return self._merge(found)


class RetinaBlock(nn.Module):
    """One pre-norm Transformer layer, as `Block`."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        self.norm = norm_of(config)
        self.attention = RetinaAttention(config)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, poolings: Sequence[int], mask: Tensor) -> Tensor:
        """A whole sequence, as `RetinaAttention.forward`."""
        y: Tensor = self.feed_forward(x + self.attention(self.norm(x), poolings, mask))
        return y
