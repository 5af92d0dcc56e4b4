"""Causal multi-head self-attention."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..cache import Cache
from ..config import LayerConfig
from .rotary import rotate

Rope = tuple[Tensor, Tensor] | None


class Projections(nn.Module):
    """Queries, keys and values of rows, and the way back; `heads * head_dim` need not equal `dim`.

    One matrix makes all three: a decode step is bound by reading weights, and one long read is faster than three short ones.
    """

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.heads, config.head_dim
        inner = config.heads * config.head_dim
        self.qkv = nn.Linear(config.dim, 3 * inner, bias=config.qkv_bias)
        self.out = nn.Linear(inner, config.dim, bias=config.out_bias)

    def _project(self, x: Tensor, rope: Rope) -> tuple[Tensor, Tensor, Tensor]:
        batch, rows, _ = x.shape
        heads = self.qkv(x).view(batch, rows, 3, self.heads, self.head_dim)  # [B, L, 3, H, D]
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)  # 3 x [B, H, L, D]
        return rotate(query, rope), rotate(key, rope), value

    def _merge(self, heads: Tensor) -> Tensor:
        batch, _, rows, _ = heads.shape
        merged: Tensor = self.out(heads.transpose(1, 2).reshape(batch, rows, self.heads * self.head_dim))
        return merged


class Attention(Projections):
    """Causal self-attention, scale `head_dim ** -0.5`."""

    def forward(self, x: Tensor, rope: Rope = None) -> Tensor:
        """Attend over a whole sequence: `[B, L, D]` -> `[B, L, D]`."""
        query, key, value = self._project(x, rope)
        return self._merge(F.scaled_dot_product_attention(query, key, value, is_causal=True))

    def step(self, x: Tensor, cache: Cache, rope: Rope = None) -> Tensor:
        """Attend from the next rows `[B, L, D]` over everything in `cache`, which grows by L rows."""
        query, key, value = self._project(x, rope)
        keys, values, mask = cache.extend(key, value)
        return self._merge(F.scaled_dot_product_attention(query, keys, values, attn_mask=mask))
