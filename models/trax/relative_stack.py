"""A run of Transformer layers with relative attention, as in google/trax's Hourglass."""

from __future__ import annotations

from torch import Tensor, nn

from ...contract import CacheSpec
from ..config import LayerConfig, require_depth
from ..layers.feed_forward import FeedForward
from ..layers.relative_attention import Distances, KeyValue, Memory, RelativeAttention, SharedBiases, key_value_caches


class RelativeBlock(nn.Module):
    """`x + attention(norm(x))`, then the feed-forward block."""

    def __init__(self, config: LayerConfig, biases: SharedBiases, pooling: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.key_value = KeyValue(config)
        self.attention = RelativeAttention(config, biases, Distances(pooling=pooling))
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, positions: Tensor, memory: Memory, name: str) -> Tensor:
        """The next rows `[B, L, D]`, which are those of indices `positions` `[B or 1, L]`."""
        normed = self.norm(x)
        keys, values = self.key_value(normed, memory, name, positions[:, 0])
        y: Tensor = self.feed_forward(x + self.attention(normed, positions, keys, values))
        return y


class RelativeStack(nn.Module):
    """Blocks and, unlike `Stack`, a norm at the end.

    Args:
        pooling: tokens per row.
    """

    def __init__(self, config: LayerConfig, biases: SharedBiases, layers: int, pooling: int) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(RelativeBlock(config, biases, pooling) for _ in range(require_depth(layers)))
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """The next rows `[B, L, D]`."""
        positions = memory.positions(x.shape[1])
        for index, layer in enumerate(self.layers):
            x = layer(x, positions, memory, _name(index))
        y: Tensor = self.norm(x)
        return y

    def caches(self) -> tuple[CacheSpec, ...]:
        """Keys and values of the layers."""
        return tuple(cache for index in range(len(self.layers)) for cache in key_value_caches(_name(index), self.config))


def _name(layer: int) -> str:
    """Not `0`, as `Stack` has it: caches of that name are those of kernels for attention without relative positions."""
    return f"relative.{layer}"
