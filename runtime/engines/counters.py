"""What the host counts for CPU engines, so that their graphs need not."""

from __future__ import annotations

import numpy as np

from ..rows import Array


class Counters:
    """Where a stage stands, as its engine wants to know it; an engine has some of these as inputs.

    `position` int64 `[B]` first of the firings, `last_row` int32 `[B]` last of them, `total` int32 `[1]` rows in the caches
    after them, `is_chunk` bool `[]` whether there are several, `rows` int64 `[1, L]` the index of each.
    """

    def __init__(self, batch: int, capacity: int) -> None:
        self.batch, self.capacity = batch, capacity
        self._position, self._last_row = np.zeros(batch, np.int64), np.zeros(batch, np.int32)
        self._total, self._is_chunk = np.zeros(1, np.int32), np.zeros((), np.bool_)
        self.fixed: dict[str, Array] = {
            "position": self._position,
            "last_row": self._last_row,
            "total": self._total,
            "is_chunk": self._is_chunk,
        }
        self._rows = np.arange(capacity)
        self.rows_address = self._rows.ctypes.data

    def set(self, first: int, firings: int) -> None:
        """Firings `[first, first + firings)` come next."""
        self._position[...], self._last_row[...] = first, first + firings - 1
        self._total[0], self._is_chunk[...] = first + firings, firings > 1
