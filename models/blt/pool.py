"""The bytes of a patch to its rows: their largest values, which then look at the bytes again."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..spans import Spans
from .config import BltConfig
from .cross_attention import HIDDEN, Offer, Read


class Pool(nn.Module):
    """`u = P max(h)`, k rows; `v = 2 u + attention(u over h)`, of the patch's own bytes and no others; v side by side."""

    def __init__(self, config: BltConfig) -> None:
        super().__init__()
        self.rows, self.dim = config.patch_rows, config.encoder.dim
        self.project = nn.Linear(self.dim, self.rows * self.dim, bias=False)
        self.offer, self.read = Offer(config.encoder), Read(config.encoder)
        self.scale = config.encoder.head_dim**-0.5

    def forward(self, spans: Spans) -> Tensor:
        """Rows of L patches -> `[B, L, k * D]`; a span of no rows is taken for one of its first row, and means nothing."""
        spans = Spans(spans.rows, spans.first, spans.within, spans.lengths.clamp(min=1))
        offered = spans.gather(self.offer(spans.rows))  # [B, L, P, 2 * KV * Dh]
        batch, patches, longest, _ = offered.shape
        heads, width = self.offer.heads, self.offer.head_dim
        keys, values = offered.reshape(batch, patches, longest, 2, heads, width).unbind(3)  # [B, L, P, KV, Dh]
        hidden = torch.where(spans.mask, 0.0, HIDDEN)[:, :, None, None, :]
        u = self.project(spans.max()).reshape(batch, patches, self.rows, self.dim)
        queries = self.queries(u)  # [B, L, KV, k * G, Dh]
        scores = queries @ keys.permute(0, 1, 3, 4, 2) + hidden
        found = scores.softmax(-1) @ values.transpose(2, 3)
        return self.merge(u, found)

    def queries(self, u: Tensor) -> Tensor:
        """Of the k rows of patches `[B, L, k, D]`: scaled `[B, L, KV, k * G, Dh]`, the G heads that share keys together."""
        batch, patches = u.shape[:2]
        heads: Tensor = self.read.query(self.read.norm(u)) * self.scale
        heads = heads.reshape(batch, patches, self.rows, self.read.kv_heads, -1, self.read.head_dim)
        return heads.transpose(2, 3).reshape(batch, patches, self.read.kv_heads, -1, self.read.head_dim)

    def merge(self, u: Tensor, found: Tensor) -> Tensor:
        """What the queries found `[B, L, KV, k * G, Dh]`, with u `[B, L, k, D]`, side by side `[B, L, k * D]`."""
        batch, patches = u.shape[:2]
        heads = found.reshape(batch, patches, self.read.kv_heads, self.rows, -1, self.read.head_dim).transpose(2, 3)
        return self.read.add(u, heads.reshape(batch, patches, self.rows, -1)).reshape(batch, patches, -1)
