"""Layers over bytes that read the newest patch, and the logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ..cache import State
from ..layers.block import Block
from ..layers.norm import norm_of
from ..layers.stack import Stack
from .config import BltConfig
from .cross_attention import Read
from .hand_down import Taken


class Logits(nn.Module):
    """The norm at the end, and the projection to the vocabulary."""

    def __init__(self, config: BltConfig) -> None:
        super().__init__()
        self.norm = norm_of(config.decoder)
        self.logits = nn.Linear(config.decoder.dim, config.vocab_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, L, D]` -> logits `[B, L, V]`."""
        y: Tensor = self.logits(self.norm(x))
        return y


class Decoder(nn.Module):
    """`x = h`; before layer 0, or before each, x reads the patch it is served, and no other; then logits.

    A stage of its own: its inputs are the encoder's row of a byte, and what the middle handed down of the newest patch, the
    byte's own if the byte closes one.
    """

    def __init__(self, config: BltConfig) -> None:
        super().__init__()
        self.taken = Taken(config)
        self.reads = nn.ModuleList(Read(config.decoder) for _ in range(config.reads))
        self.stack = Stack(config.decoder, config.decoder_layers)
        self.head = Logits(config)

    def whole(self, fine: Tensor, served: Tensor) -> Tensor:
        """All of a text at once: rows `[B, L, D]`, what each byte is served `[B, L, W]` -> logits `[B, L, V]`."""
        x, patches = fine, self.taken(served)
        rope = _rope(self.stack, torch.arange(x.shape[1], device=x.device)[None])
        for index, layer in enumerate(self.stack.layers):
            x = layer(self._read(index, x, patches), rope)
        logits: Tensor = self.head(x)
        return logits

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`."""
        x, served = inputs
        patches, rope = self.taken(served), _rope(self.stack, state.positions(x.shape[1]))
        for index, (layer, cache) in enumerate(zip(self.stack.layers, state.caches, strict=True)):
            x = cast(Block, layer).step(self._read(index, x, patches), cache, rope)
        state.advance(x.shape[1])
        if logit_rows is not None:
            x = x.index_select(1, logit_rows)
        logits: Tensor = self.head(x)
        return logits

    def _read(self, index: int, x: Tensor, patches: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Before layer `index`."""
        if index >= len(self.reads):
            return x
        y: Tensor = self.reads[index](x, *patches[index])
        return y


def _rope(stack: Stack, positions: Tensor) -> tuple[Tensor, Tensor] | None:
    """Angles of rows at these indices `[B or 1, L]`, if the layers rotate."""
    return stack.rotary(positions) if stack.rotary is not None else None
