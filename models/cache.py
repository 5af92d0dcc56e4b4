"""What an attention layer remembers between calls, in eager PyTorch.

Export replaces these two classes by ones with the same methods that write ONNX nodes (`export/graph_state.py`), so the
models themselves know nothing of graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Cache(Protocol):
    """Keys and values of one layer, all rows seen so far."""

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Append `[B, H, L, D]` rows; return all keys, all values `[B, H, S, D]` and a mask (True: may look) or None."""
        ...


class State(Protocol):
    """The caches of one stack and the index of the next row."""

    @property
    def caches(self) -> Sequence[Cache]: ...

    def positions(self, rows: int) -> Tensor:
        """Indices `[B or 1, rows]` of the next rows at this stack's own rate."""
        ...

    def advance(self, rows: int) -> None:
        """Count `rows` as seen."""
        ...


class KVCache:
    """Preallocated keys and values `[B, H, capacity, D]`, written in place, of which `length` rows count."""

    def __init__(self, batch: int, heads: int, capacity: int, head_dim: int, like: Tensor) -> None:
        self.keys = like.new_zeros(batch, heads, capacity, head_dim)
        self.values = torch.zeros_like(self.keys)
        self.length = 0

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        start, rows = self.length, key.shape[2]
        self.length = start + rows
        self.keys[:, :, start : self.length] = key
        self.values[:, :, start : self.length] = value
        keys, values = self.keys[:, :, : self.length], self.values[:, :, : self.length]
        if rows == 1:
            return keys, values, None
        mask = torch.arange(self.length) <= torch.arange(start, self.length)[:, None]  # [L, S]
        return keys, values, mask.to(key.device)


@dataclass
class StackState:
    """State of one `Stack` in eager PyTorch."""

    caches: list[KVCache]
    position: int = 0

    def positions(self, rows: int) -> Tensor:
        return torch.arange(self.position, self.position + rows)[None]

    def advance(self, rows: int) -> None:
        self.position += rows
