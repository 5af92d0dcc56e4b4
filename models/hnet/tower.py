"""A run of layers of an H-Net at one scale: Mamba-2 and attention, in any order."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...contract import CacheSpec
from ..cache import Cache, State
from ..layers.attention import Attention, Rope
from ..layers.feed_forward import FeedForward
from ..layers.mamba2 import Mamba2
from ..layers.norm import norm_of
from ..layers.rotary import Rotary
from .config import HNetConfig, ScaleConfig, layers_of


class AttentionLayer(nn.Module):
    """`x + attention(norm(x))`, and a feed-forward block where the layer has one."""

    def __init__(self, scale: ScaleConfig, has_feed_forward: bool) -> None:
        super().__init__()
        config = scale.layer()
        self.norm = norm_of(config)
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config) if has_feed_forward else nn.Identity()

    def forward(self, x: Tensor, rope: Rope) -> Tensor:
        """A whole sequence `[B, L, D]`."""
        y: Tensor = self.feed_forward(x + self.attention(self.norm(x), rope))
        return y

    def step(self, x: Tensor, cache: Cache, rope: Rope) -> Tensor:
        """The next rows `[B, L, D]`."""
        y: Tensor = self.feed_forward(x + self.attention.step(self.norm(x), cache, rope))
        return y


class MambaLayer(nn.Module):
    """`x + mamba(norm(x))`, and a feed-forward block where the layer has one."""

    def __init__(self, config: HNetConfig, scale: ScaleConfig, has_feed_forward: bool) -> None:
        super().__init__()
        self.norm = norm_of(scale.layer())
        self.mamba = Mamba2(config.mamba(scale.dim))
        self.feed_forward = FeedForward(scale.layer()) if has_feed_forward else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """A whole sequence `[B, L, D]`."""
        y: Tensor = self.feed_forward(x + self.mamba(self.norm(x)))
        return y

    def step(self, x: Tensor, state: State, name: str) -> Tensor:
        """The next rows `[B, L, D]`, with the caches of this name."""
        y: Tensor = self.feed_forward(x + self.mamba.step(self.norm(x), state, name))
        return y


class Tower(nn.Module):
    """The layers of one of a scale's towers, and a norm at their end."""

    def __init__(self, config: HNetConfig, scale: ScaleConfig, layout: str) -> None:
        super().__init__()
        self.config, self.dim = scale.layer(), scale.dim
        kinds = layers_of(layout)
        self.layers = nn.ModuleList(
            AttentionLayer(scale, kind == "T") if kind in "tT" else MambaLayer(config, scale, kind == "M") for kind in kinds
        )
        self.norm = norm_of(self.config)
        self.attends = any(kind in "tT" for kind in kinds)
        self.rotary = Rotary(self.config) if self.attends and scale.rotary_dims else None

    def forward(self, x: Tensor) -> Tensor:
        """A whole sequence `[B, L, D]`."""
        rope = self.rotary(torch.arange(x.shape[1], device=x.device)[None]) if self.rotary else None
        for layer in self.layers:
            x = layer(x, rope) if isinstance(layer, AttentionLayer) else layer(x)
        y: Tensor = self.norm(x)
        return y

    def step(self, x: Tensor, state: State) -> Tensor:
        """The next rows `[B, L, D]`; `state` moves on by L."""
        rope = self.rotary(state.positions(x.shape[1])) if self.rotary else None
        caches = iter(state.caches)
        for number, layer in enumerate(self.layers):
            if isinstance(layer, AttentionLayer):
                x = layer.step(x, next(caches), rope)
            elif isinstance(layer, MambaLayer):
                x = layer.step(x, state, str(number))
        state.advance(x.shape[1])
        y: Tensor = self.norm(x)
        return y

    @property
    def has_states(self) -> bool:
        """Whether any of its layers has states, which a rewind can't cut."""
        return any(isinstance(layer, MambaLayer) for layer in self.layers)

    def caches(self) -> tuple[CacheSpec, ...]:
        """Keys and values of its attention layers, windows and memories of its Mamba-2 layers, by the layer's number."""
        return tuple(cache for number, layer in enumerate(self.layers) for cache in self._caches_of(str(number), layer))

    def _caches_of(self, name: str, layer: nn.Module) -> tuple[CacheSpec, ...]:
        if isinstance(layer, MambaLayer):
            return layer.mamba.caches(name)
        heads, width = self.config.key_value_heads, self.config.head_dim
        return tuple(CacheSpec(name=f"{name}.{part}", heads=heads, width=width) for part in ("key", "value"))
