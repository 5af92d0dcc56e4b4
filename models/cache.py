"""What an attention layer remembers between calls, in eager PyTorch.

Export replaces these two classes by ones with the same methods that write ONNX nodes (`export/graphs/modules.py`), so the
models themselves know nothing of graphs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..contract import StageSpec


class Cache(Protocol):
    """Keys and values of one layer, all rows seen so far."""

    def extend(self, key: Tensor, value: Tensor, window: int | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Append `[B, H, L, D]` rows; return the keys and values `[B, H, S, D]` that any of them sees, and who sees which.

        Args:
            key: of the rows, and `value`.
            window: how many rows each of them sees, itself included; None: all. Those it does not see stay in the cache.

        Returns:
            Keys, values, and a mask `[L, S]` (True: may look) or None, where all may look.
        """
        ...


class LayerState(Protocol):
    """What a `Stack` remembers, and the index of its next row."""

    @property
    def caches(self) -> Sequence[Cache]:
        """Keys and values of attention layers: the caches `0.key` and `0.value`, and so on, in the order they are declared.

        Layers of a stage that have no attention leave gaps in the numbers.
        """
        ...

    def positions(self, rows: int) -> Tensor:
        """Indices `[B or 1, rows]` of the next firings, counted from the last reset in a stage that has any."""
        ...

    def advance(self, rows: int) -> None:
        """Count `rows` as seen."""
        ...


class State(LayerState, Protocol):
    """What a stage remembers, and the index of its next firing."""

    def read(self, name: str) -> Tensor:
        """One of the stage's caches `[B, H, S, W]`, all its rows, from before these firings.

        Engines write in place: a row that this call writes over may be read as it was or as it becomes, so do not use those.
        """
        ...

    def write(self, name: str, rows: Tensor, first: Tensor) -> Tensor:
        """Write rows `[B, H, n, W]` at `[first, first + n)`, `first` int64 `[B or 1]`, into one of the stage's caches, once.

        Returns:
            The whole cache `[B, H, S, W]`; what lies beyond the rows written so far is to be hidden by a mask. What these
            firings need of it is best read here: TensorRT-RTX 1.7 crashes on some graphs whose writes nothing depends on.
        """
        ...

    def replace(self, name: str, state: Tensor) -> None:
        """Let this `[B, H, rows, W]` be one of the stage's recurrent caches from now on, once in a call.

        Engines write it over what `read` gave, so one operation alone may read that, and `state` must depend on it: of a state
        that decays, its product with the first row's decay; of a convolution's window, its concatenation with the new rows.
        """
        ...

    def borrowed(self, stage: str, name: str) -> Tensor:
        """A cache of another stage, `[B, H, S, W]`, all its rows; those that are not there yet are to be hidden by a mask."""
        ...


class KVCache:
    """Preallocated keys and values `[B, H, capacity, D]`, written in place, of which `length` rows count."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values, self.length = keys, values, 0

    def extend(self, key: Tensor, value: Tensor, window: int | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """As `Cache.extend`."""
        start, rows = self.length, key.shape[2]
        self.length = start + rows
        self.keys[:, :, start : self.length] = key
        self.values[:, :, start : self.length] = value
        oldest = 0 if window is None else max(start - window + 1, 0)
        keys, values = self.keys[:, :, oldest : self.length], self.values[:, :, oldest : self.length]
        if rows == 1:
            return keys, values, None
        ago = torch.arange(start, self.length)[:, None] - torch.arange(oldest, self.length)  # [L, S]
        mask = ago >= 0 if window is None else (ago >= 0) & (ago < window)
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


class StageState:
    """State of one stage in eager PyTorch, as `State`.

    Args:
        spec: what the stage declares; `tensors` are its caches, by name.
        batch: sequences.
        firings: room for so many.
    """

    def __init__(self, spec: StageSpec, batch: int, firings: int) -> None:
        self.tensors = {
            cache.name: torch.zeros(batch, cache.heads, cache.length(firings), cache.width) for cache in spec.caches
        }
        self._resets, self._position, self._lent = spec.resets, 0, {}  # type: int | None, int, dict[str, Tensor]
        self.caches = [KVCache(self.tensors[f"{name}.key"], self.tensors[f"{name}.value"]) for name in spec.attentions]

    def begin(self, firing: int) -> None:
        """Let this be the index of the next firing."""
        self._position = firing if self._resets is None else firing % self._resets
        for cache in self.caches:
            cache.length = self._position

    def lend(self, caches: Mapping[str, Tensor]) -> None:
        """Let these be the caches of other stages, by `BorrowSpec.name`."""
        self._lent = dict(caches)

    def positions(self, rows: int) -> Tensor:
        """As `State.positions`."""
        return torch.arange(self._position, self._position + rows)[None]

    def advance(self, rows: int) -> None:
        """As `State.advance`: the host says where to begin."""

    def read(self, name: str) -> Tensor:
        """As `State.read`; a copy, for the cache is written in place."""
        return self.tensors[name].clone()

    def write(self, name: str, rows: Tensor, first: Tensor) -> Tensor:
        """As `State.write`; all sequences are at the same row."""
        start = int(first.flatten()[0])
        self.tensors[name][:, :, start : start + rows.shape[2]] = rows
        return self.tensors[name]

    def replace(self, name: str, state: Tensor) -> None:
        """As `State.replace`."""
        self.tensors[name][...] = state

    def borrowed(self, stage: str, name: str) -> Tensor:
        """As `State.borrowed`."""
        return self._lent[f"borrowed.{stage}.{name}"]
