"""A run of Transformer layers at one rate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...contract import CacheSpec, layer_caches
from ..cache import LayerState, StackState
from ..config import LayerConfig, require_depth
from .block import Block
from .rotary import Rotary


class Stack(nn.Module):
    """`layers` blocks one after the other, without a norm at the end (possibly none at all: then the identity)."""

    def __init__(self, config: LayerConfig, layers: int) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Block(config) for _ in range(require_depth(layers)))
        self.rotary = Rotary(config) if config.rotary_base is not None and layers else None

    def init_state(self, batch: int, capacity: int) -> StackState:
        """Empty caches for `batch` sequences of at most `capacity` rows at this rate."""
        return StackState([layer.init_state(batch, capacity) for layer in self._blocks()])

    def forward(self, x: Tensor) -> Tensor:
        """A whole sequence `[B, L, D]`."""
        rope = self.rotary(torch.arange(x.shape[1], device=x.device)[None]) if self.rotary else None
        for layer in self.layers:
            x = layer(x, rope)
        return x

    def step(self, x: Tensor, state: LayerState) -> Tensor:
        """The next rows `[B, L, D]`; `state` moves on by L."""
        rope = self.rotary(state.positions(x.shape[1])) if self.rotary else None
        for layer, cache in zip(self._blocks(), state.caches, strict=True):
            x = layer.step(x, cache, rope)
        state.advance(x.shape[1])
        return x

    def caches(self, keeps: int | None = None) -> tuple[CacheSpec, ...]:
        """Keys and values of the layers, as a stage declares them; those of a stage that resets keep so many rows."""
        config = self.config
        return layer_caches(len(self.layers), config.key_value_heads, config.head_dim, keeps)

    def _blocks(self) -> list[Block]:
        return [layer for layer in self.layers if isinstance(layer, Block)]
