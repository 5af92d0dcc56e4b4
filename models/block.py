"""One pre-norm Transformer layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .attention import Attention, Rope
from .cache import Cache, KVCache
from .config import ModelConfig
from .feed_forward import FeedForward


class Block(nn.Module):
    """`x + attention(norm(x))`, then the feed-forward block."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)

    def init_state(self, batch: int, capacity: int) -> KVCache:
        """An empty cache for `batch` sequences of at most `capacity` rows."""
        attention, like = self.attention, torch.empty_like(self.norm.weight)
        return KVCache(batch, attention.heads, capacity, attention.head_dim, like)

    def forward(self, x: Tensor, rope: Rope = None) -> Tensor:
        """A whole sequence `[B, L, D]`."""
        y: Tensor = self.feed_forward(x + self.attention(self.norm(x), rope))
        return y

    def step(self, x: Tensor, cache: Cache, rope: Rope = None) -> Tensor:
        """The next rows `[B, L, D]`."""
        y: Tensor = self.feed_forward(x + self.attention.step(self.norm(x), cache, rope))
        return y
