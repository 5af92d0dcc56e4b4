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

    def __init__(self, lead: int, array: Array) -> None:
        self.lead, self.array = lead, array
        self._address = array.ctypes.data
        self._row_bytes = array.strides[0]

    @classmethod
    def allocate(cls, lead: int, rows: int, batch: int, width: int) -> RowLog:
        """Zeros."""
        return cls(lead, np.zeros((lead + rows, batch, width), np.float32))

    def rows(self, first: int, count: int) -> Block:
        """Rows `[first, first + count)`; `first` may reach back into the zeros, to `-lead`."""
        start = first + self.lead
        return Block(self._address + start * self._row_bytes, self.array[start : start + count])

    def picked(self, indices: Ids) -> Block:
        """A copy of the rows at indices `[n]`, which may reach back into the zeros."""
        return Block.of(self.array[indices + self.lead])


class TokenLog:
    """All token ids seen, `[B, lead + tokens]` int64, with id 0 before the first."""

    def __init__(self, lead: int, array: Ids) -> None:
        self.lead, self.array = lead, array
        self._address = array.ctypes.data

    @classmethod
    def allocate(cls, lead: int, tokens: int, batch: int) -> TokenLog:
        """Zeros."""
        return cls(lead, np.zeros((batch, lead + tokens), np.int64))

    def of(self, sequence: int) -> TokenLog:
        """One sequence's, in the same memory."""
        return TokenLog(self.lead, self.array[sequence : sequence + 1])

    def seen(self, tokens: int) -> Ids:
        """A view of the first ids, `[B, tokens]`."""
        found: Ids = self.array[:, self.lead : self.lead + tokens]
        return found

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

    def picked(self, indices: Ids) -> Block:
        """A copy of the ids `[B, n]` at indices `[n]`."""
        return Block.of(np.ascontiguousarray(self.array[:, indices + self.lead]))
