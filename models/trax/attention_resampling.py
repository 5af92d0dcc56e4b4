"""Resampling by attention over the whole past, as google/trax does it (trax/layers/research/resampling.py).

Unlike lucidrains' (`GroupAttention`), a coarse row sees all fine rows so far, not only those of its own group, and a fine row
all coarse ones. So there are two more caches: keys and values of fine rows, which the coarse scale keeps, and of coarse rows,
which the coarse scale keeps for the finer one to read.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..config import LayerConfig, ModelConfig
from ..layers.feed_forward import FeedForward
from ..layers.lengthen import Lengthen
from ..layers.relative_attention import Distances, KeyValue, Memory, RelativeAttention, SharedBiases
from ..layers.shorten import Shorten

DOWN, UP = "down", "up"
"""The names of these caches."""


class AttentionShorten(nn.Module):
    """k fine rows become one coarse row: `q = norm(pool(h)); q + attention(q, h)`, then feed forward, where `h = norm(x)`.

    Key j is the row with that index after the causal shift: the first k - 1 are those of zeros, which the norm makes its
    bias. Row i sees all up to `k * i + k - 1`, at distances up to k - 1.

    Args:
        config: says the way of pooling, `"average"` or `"linear"`.
        pooling: tokens per fine row.
    """

    def __init__(self, config: ModelConfig, layer: LayerConfig, biases: SharedBiases, factor: int, pooling: int) -> None:
        super().__init__()
        self.factor = factor
        self.norm = nn.LayerNorm(layer.dim, eps=layer.norm_eps)
        self.pool = Shorten(config, factor)
        self.pool_norm = nn.LayerNorm(layer.dim, eps=layer.norm_eps)
        self.key_value = KeyValue(layer)
        distances = Distances(query_step=factor, ahead=factor - 1, pooling=pooling)
        self.attention = RelativeAttention(layer, biases, distances)
        self.feed_forward = FeedForward(layer)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """The next windows `[B, n * k, D]` -> `[B, n, D]`."""
        normed = self.norm(x)
        positions = memory.positions(x.shape[1] // self.factor)
        keys, values = self.key_value(normed, memory, DOWN, positions[:, 0] * self.factor)
        query = self.pool_norm(self.pool(normed))
        y: Tensor = self.feed_forward(query + self.attention(query, positions, keys, values))
        return y


class HandBack(nn.Module):
    """What a coarse scale gives to the finer one: keys and values of its rows, and k rows each for queries to start from."""

    def __init__(self, config: ModelConfig, layer: LayerConfig, factor: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(layer.dim, eps=layer.norm_eps)
        self.lengthen = Lengthen(config, factor)
        self.lengthen_norm = nn.LayerNorm(layer.dim, eps=layer.norm_eps)
        self.key_value = KeyValue(layer)

    def forward(self, x: Tensor, memory: Memory) -> tuple[Tensor, Tensor, Tensor]:
        """The next rows `[B, n, D]` -> `[B, n * k, D]`, and all keys and values so far `[B, H, S, Dh]`."""
        normed = self.norm(x)
        keys, values = self.key_value(normed, memory, UP, memory.positions(x.shape[1])[:, 0])
        return self.lengthen_norm(self.lengthen(normed)), keys, values


class AttentionMerge(nn.Module):
    """Fine rows x take in coarse ones: `u = context + x; u + attention(u, coarse)`, feed forward, and `x + norm(u)`.

    Distances are in fine rows, and these count as one token each at every scale, as in the original.
    """

    def __init__(self, layer: LayerConfig, biases: SharedBiases, factor: int) -> None:
        super().__init__()
        self.attention = RelativeAttention(layer, biases, Distances(key_step=factor))
        self.feed_forward = FeedForward(layer)
        self.norm = nn.LayerNorm(layer.dim, eps=layer.norm_eps)

    def forward(self, x: Tensor, context: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Rows of indices `positions` `[B or 1, L]`, both `[B, L, D]` -> `[B, L, D]`."""
        start = context + x
        y: Tensor = x + self.norm(self.feed_forward(start + self.attention(start, positions, keys, values)))
        return y
