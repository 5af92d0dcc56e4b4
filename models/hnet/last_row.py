"""The row before those of a call, which the next rows are made with."""

from __future__ import annotations

import torch
from torch import Tensor

from ...contract import CacheSpec
from ..cache import State


class LastRow:
    """One row of a stage's own that is carried from firing to firing.

    In a stage that has states anyway it is one of them. Else it is a cache of all such rows, of which the last is read: then a
    rewind runs nothing again.
    """

    def __init__(self, name: str, width: int, is_state: bool) -> None:
        self.cache = CacheSpec(name=name, heads=1, width=width, recurrent=is_state)

    def read(self, rows: int, state: State) -> Tensor:
        """The row before the next `rows`, `[B, 1, W]`; zeros before the first."""
        kept = state.read(self.cache.name)
        if self.cache.recurrent:
            return kept[:, 0]
        first = state.positions(rows)[:, :1].expand(kept.shape[0], -1)  # [B, 1]
        last = _rows(kept, (first - 1).clamp(min=0))
        return torch.where(first[:, :, None] == 0, torch.zeros_like(last), last)

    def keep(self, rows: Tensor, state: State) -> None:
        """Let the last of these `[B, 1 + L, W]` be it from now on; the first is the one that was read.

        What is written is not read back: TensorRT-RTX 1.7 crashes on a gather from a cache that it writes in place.
        """
        if self.cache.recurrent:
            state.replace(self.cache.name, rows[:, None, -1:])
        else:
            state.write(self.cache.name, rows[:, None, 1:], state.positions(1)[:, 0])


def _rows(cache: Tensor, places: Tensor) -> Tensor:
    """Of a cache `[B, 1, S, W]` those at places `[B, n]`, `[B, n, W]`; the cache itself is not copied."""
    index = places[:, None, :, None].expand(-1, -1, -1, cache.shape[3])
    return cache.gather(2, index)[:, 0]
