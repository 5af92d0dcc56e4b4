"""Causal multi-head self-attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..cache import Cache
from ..config import LayerConfig
from .rotary import halved, rotate

Rope = tuple[Tensor, Tensor] | None


class Projections(nn.Module):
    """Queries, keys and values of rows, and the way back; `heads * head_dim` need not equal `dim`.

    One matrix makes all three: a decode step is bound by reading weights, and one long read is faster than three short ones.
    Its columns are the `heads` of the queries, then the `kv_heads` of the keys, then those of the values.
    """

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.key_value_heads, config.head_dim
        has_neighbours = config.rotary_base is not None and config.rotary_pairs == "neighbours"
        self.paired_dims = (config.rotary_dims or config.head_dim) if has_neighbours else 0
        """How many dimensions of a head are rotated with their neighbours; caches have them as `halved` leaves them."""
        self.qkv = nn.Linear(config.dim, (self.heads + 2 * self.kv_heads) * config.head_dim, bias=config.qkv_bias)
        self.out = nn.Linear(config.heads * config.head_dim, config.dim, bias=config.out_bias)

    def _project(self, x: Tensor, rope: Rope) -> tuple[Tensor, Tensor, Tensor]:
        """Queries `[B, H, L, Dh]`, keys and values `[B, Hkv, L, Dh]` of rows `[B, L, D]`."""
        batch, rows, _ = x.shape
        heads = self.qkv(x).view(batch, rows, -1, self.head_dim).transpose(1, 2)  # [B, H + 2 Hkv, L, Dh]
        query, key, value = heads.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        return self._turned(query, rope), self._turned(key, rope), value

    def _turned(self, x: Tensor, rope: Rope) -> Tensor:
        return rotate(halved(x, self.paired_dims) if self.paired_dims else x, rope)

    def _merge(self, heads: Tensor) -> Tensor:
        batch, _, rows, _ = heads.shape
        merged: Tensor = self.out(heads.transpose(1, 2).reshape(batch, rows, self.heads * self.head_dim))
        return merged


class Attention(Projections):
    """Causal self-attention, scale `head_dim ** -0.5`; over the newest `window` rows, if there is one."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__(config)
        self.window = config.window

    def forward(self, x: Tensor, rope: Rope = None) -> Tensor:
        """Attend over a whole sequence: `[B, L, D]` -> `[B, L, D]`."""
        query, key, value = self._project(x, rope)
        if self.window is None:
            return self._attend(query, key, value, None, is_causal=True)
        row = torch.arange(x.shape[1], device=x.device)
        ago = row[:, None] - row
        return self._attend(query, key, value, (ago >= 0) & (ago < self.window))

    def step(self, x: Tensor, cache: Cache, rope: Rope = None) -> Tensor:
        """Attend from the next rows `[B, L, D]` over what is in `cache`, which grows by L rows."""
        query, key, value = self._project(x, rope)
        return self._attend(query, *cache.extend(key, value, self.window))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, is_causal: bool = False) -> Tensor:
        if self.kv_heads != self.heads:
            key, value = (part.repeat_interleave(self.heads // self.kv_heads, dim=1) for part in (key, value))
        return self._merge(F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=is_causal))
