"""Rows that stages hand to one another: append-only logs in memory that is allocated once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]


class Block(NamedTuple):
    """A contiguous run of memory that an engine reads or writes in place; the array keeps it alive."""

    address: int
    array: Array

    @classmethod
    def of(cls, array: Array) -> Block:
        """Wrap a C-contiguous array."""
        return cls(array.ctypes.data, array)


class RowLog:
    """All rows a stage has given, `[lead + rows, B, D]` fp32, addressed by their absolute index.

    Index 0 lies behind `lead` rows of zeros, so the window of any firing, the first one's too, is a contiguous slice: this is
    the causal shift. Rows are never moved: rewinding is only a smaller index, and nothing is copied in a step. Pages that were
    never written cost no memory.
    """

    def __init__(self, lead: int, rows: int, batch: int, dim: int) -> None:
        self.lead = lead
        self.array = np.zeros((lead + rows, batch, dim), np.float32)
        self._address = self.array.ctypes.data
        self._row_bytes = batch * dim * self.array.itemsize

    def rows(self, first: int, count: int) -> Block:
        """Rows `[first, first + count)`; `first` may reach back into the zeros, to `-lead`."""
        start = first + self.lead
        return Block(self._address + start * self._row_bytes, self.array[start : start + count])


class TokenLog:
    """All token ids seen, `[B, lead + tokens]` int64, with id 0 before the first."""

    def __init__(self, lead: int, tokens: int, batch: int, array: Ids | None = None) -> None:
        self.lead = lead
        self.array: Ids = np.zeros((batch, lead + tokens), np.int64) if array is None else array
        self._address = self.array.ctypes.data

    def sequence(self, index: int) -> TokenLog:
        """That of one of its sequences, the same memory."""
        return TokenLog(self.lead, self.array.shape[1] - self.lead, 1, self.array[index : index + 1])

    def write(self, first: int, ids: npt.NDArray[np.int64]) -> None:
        """Set ids `[B, L]` at indices `[first, first + L)`."""
        start = first + self.lead
        self.array[:, start : start + ids.shape[1]] = ids

    def rows(self, first: int, count: int) -> Block:
        """Ids `[B, count]` from index `first`; a copy when there are several sequences, ids being the one batch-first input."""
        start = first + self.lead
        ids = self.array[:, start : start + count]
        if ids.shape[0] > 1:
            return Block.of(np.ascontiguousarray(ids))
        return Block(self._address + start * self.array.itemsize, ids)
