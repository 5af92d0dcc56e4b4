"""A run of layers with token shift, as MEGABYTE-pytorch's `Transformer` without its last norm."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ...contract import CacheSpec
from ..cache import State
from ..config import LayerConfig, require_depth
from ..layers.attention import Rope
from ..layers.rotary import Rotary
from .first_row import FirstRow
from .shifted_block import ShiftedBlock


class ShiftedStack(nn.Module):
    """`layers` blocks one after the other (possibly none at all: then the identity)."""

    def __init__(self, config: LayerConfig, layers: int) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(ShiftedBlock(config) for _ in range(require_depth(layers)))
        self.rotary = Rotary(config) if config.rotary_base is not None and layers else None

    def forward(self, x: Tensor) -> Tensor:
        """Whole sequences `[B, L, D]`."""
        rope = self._rope(torch.arange(x.shape[1], device=x.device)[None])
        for layer in self.layers:
            x = layer(x, rope)
        return x

    def step(self, x: Tensor, state: State) -> Tensor:
        """The next rows `[B, L, D]`."""
        rope = self._rope(state.positions(x.shape[1]))
        for index, layer in enumerate(self.blocks()):
            x = layer.step(x, state, index, rope)
        return x

    def step_behind(self, x: Tensor, state: State, first_rows: nn.ModuleList) -> Tensor:
        """As `step`, behind a row that stands before that of firing 0 and is not among the firings: a `FirstRow` per layer."""
        rope = self._rope(state.positions(x.shape[1]) + 1)
        found = [first for first in first_rows if isinstance(first, FirstRow)]
        for index, (layer, first) in enumerate(zip(self.blocks(), found, strict=True)):
            x = layer.step_behind(x, state, index, first, rope)
        return x

    @torch.no_grad()
    def first_rows(self, start: Tensor) -> nn.ModuleList:
        """What every layer remembers of a first row `[D]`, worked out from the weights as they are now."""
        x, found = start[None, None], []
        for layer in self.blocks():
            x, first = layer.first_row(x)
            found.append(first)
        return nn.ModuleList(found)

    def caches(self, keeps: int | None = None) -> tuple[CacheSpec, ...]:
        """Keys, values and shifted halves of the layers; those of a stage that resets keep so many rows."""
        return tuple(cache for layer in range(len(self.layers)) for cache in self._layer_caches(layer, keeps))

    def _layer_caches(self, layer: int, keeps: int | None) -> Iterator[CacheSpec]:
        config = self.config
        for part in ("key", "value"):
            yield CacheSpec(name=f"{layer}.{part}", heads=config.heads, width=config.head_dim, keeps=keeps)
        for part in ("attention_shift", "feed_forward_shift"):
            yield CacheSpec(name=f"{layer}.{part}", heads=1, width=config.dim // 2, keeps=keeps)

    def blocks(self) -> list[ShiftedBlock]:
        """The layers, in order."""
        return [layer for layer in self.layers if isinstance(layer, ShiftedBlock)]

    def _rope(self, positions: Tensor) -> Rope:
        return self.rotary(positions) if self.rotary else None
