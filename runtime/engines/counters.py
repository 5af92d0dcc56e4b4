"""What the host counts for CPU engines, so that their graphs need not."""

from __future__ import annotations

import numpy as np

from ..rows import Array, Ids

FEW_ROWS = 8
"""As many rows as an engine runs like one: no slower than as a chunk, on one thread or two and behind any past
(docs/adr/0006)."""


class Counters:
    """Where a stage stands, as its engine wants to know it; an engine has some of these as inputs.

    `position` int64 `[B]` first of the firings, `last_row` int32 `[B]` last of them, `total` int32 `[1]` the most rows that a
    sequence has in the caches after them, `is_chunk` bool `[]` whether there are more than a few, `rows` int64 `[B, L]` the
    index of each.

    Engines that were built before sequences had positions of their own have `rows` `[1, L]`: of one sequence.
    """

    def __init__(self, batch: int, capacity: int, takes_each: bool = True) -> None:
        self.batch, self.capacity = batch, capacity
        self._position, self._last_row = np.zeros(batch, np.int64), np.zeros(batch, np.int32)
        self._total, self._is_chunk = np.zeros(1, np.int32), np.zeros((), np.bool_)
        self.fixed: dict[str, Array] = {
            "position": self._position,
            "last_row": self._last_row,
            "total": self._total,
            "is_chunk": self._is_chunk,
        }
        self._are_one = batch == 1 or not takes_each
        self._rows: Ids = np.arange(capacity)[None] if self._are_one else np.zeros((batch, 1), np.int64)
        self._rows_address = self._rows.ctypes.data

    def set(self, first: int | Ids, firings: int) -> None:
        """Firings `[first, first + firings)` come next; `first` is all sequences', or int64 `[B]` each one's."""
        self._position[...], self._last_row[...] = first, first + (firings - 1)
        self._total[0] = (first if isinstance(first, int) else first.max()) + firings
        self._is_chunk[...] = firings > FEW_ROWS

    def rows(self, first: int | Ids, firings: int) -> tuple[int, tuple[int, int]]:
        """Address and shape of `rows`; of one sequence they are a part of numbers that stand there already."""
        if self._are_one:
            return self._rows_address + first * self._rows.itemsize, (1, firings)  # type: ignore[return-value]
        if self._rows.shape[1] != firings:
            self._rows = np.zeros((self.batch, firings), np.int64)
            self._rows_address = self._rows.ctypes.data
        self._rows[...] = np.arange(firings) + (first if isinstance(first, int) else first[:, None])
        return self._rows_address, (self.batch, firings)
