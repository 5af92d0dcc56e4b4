"""Cross attention without positions, in two halves: what rows offer to be read, and who reads them.

Keys and values of rows that are read many times are made once, where the rows are. Both sides have a norm of their own, and
whoever reads is added twice to what it found: once inside the original's module, once by its caller.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from ..config import LayerConfig
from ..layers.norm import norm_of

HIDDEN = -30_000.0
"""Added to a score that must not count: its weight is exactly 0, and it fits fp16."""


class Offer(nn.Module):
    """Keys and values of rows."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.key_value_heads, config.head_dim
        self.norm = norm_of(config)
        self.key_value = nn.Linear(config.dim, 2 * self.heads * config.head_dim, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows `[..., D]` -> keys, and then values, `[..., 2 * heads * head_dim]`."""
        return cast(Tensor, self.key_value(self.norm(rows)))


class Read(nn.Module):
    """Queries of rows, and what is made of what they found."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.heads, config.head_dim
        self.kv_heads = config.key_value_heads
        self.norm = norm_of(config)
        self.query = nn.Linear(config.dim, config.heads * config.head_dim, bias=False)
        self.out = nn.Linear(config.heads * config.head_dim, config.dim, bias=False)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Each row `[B, L, D]` reads k rows of its own: scaled keys `[B, L, KV, Dh, k]`, values `[B, L, KV, k, Dh]`."""
        batch, rows, _ = x.shape
        queries = self.query(self.norm(x)).reshape(
            batch, rows, self.kv_heads, -1, self.head_dim
        )  # heads of a group share a key
        found = (queries @ keys).softmax(-1) @ values  # [B, L, KV, heads / KV, Dh]
        return self.add(x, found.reshape(batch, rows, -1))

    def add(self, x: Tensor, found: Tensor) -> Tensor:
        """What was read `[..., heads * head_dim]`, added to who read it `[..., D]`."""
        return cast(Tensor, 2 * x + self.out(found))
