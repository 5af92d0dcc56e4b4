"""One pre-norm Transformer layer."""

from __future__ import annotations

from torch import Tensor, nn

from ..cache import Cache, KVCache
from ..config import LayerConfig
from .attention import Attention, Rope
from .feed_forward import FeedForward
from .norm import norm_of


class Block(nn.Module):
    """`x + attention(norm(x))`, then the feed-forward block; or both of the same x (GPT-NeoX's parallel residual)."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        self.norm = norm_of(config)
        self.parallel = config.parallel
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)

    def init_state(self, batch: int, capacity: int) -> KVCache:
        """An empty cache for `batch` sequences of at most `capacity` rows."""
        shape = (batch, self.attention.kv_heads, capacity, self.attention.head_dim)
        return KVCache(*(self.attention.qkv.weight.new_zeros(shape) for _ in range(2)))

    def forward(self, x: Tensor, rope: Rope = None) -> Tensor:
        """A whole sequence `[B, L, D]`."""
        return self._add(x, self.attention(self.norm(x), rope))

    def step(self, x: Tensor, cache: Cache, rope: Rope = None) -> Tensor:
        """The next rows `[B, L, D]`."""
        return self._add(x, self.attention.step(self.norm(x), cache, rope))

    def _add(self, x: Tensor, attended: Tensor) -> Tensor:
        if self.parallel:
            return x + attended + self.feed_forward.change(x)
        y: Tensor = self.feed_forward(x + attended)
        return y
