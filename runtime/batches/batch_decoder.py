"""What a batch drives: the state of sequences that stand each at a position of its own, and what fires the stages on it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..decoder import Observer, Written
from ..rows import Ids


class BatchDecoder(Protocol):
    """Fires the stages of a model for slots of a batch. Slot b owns row b of every cache and log; state is append-only.

    Token ids are in the token log `[slots, lead + capacity]` that the decoder was opened with: a call reads those at the
    positions it is given. One call at a time.
    """

    observer: Observer | None
    """Called after every engine call with the stage, the firings of all slots that it ran, and the nanoseconds it took."""

    @property
    def fires(self) -> dict[str, int]:
        """Firings of every stage so far that sequences asked for; those that a range was filled up with do not count."""
        ...

    @property
    def copied_bytes(self) -> int:
        """Bytes of rows copied so far, to bring together what stages read of several slots, and of caches that could not be
        written in place."""
        ...

    @property
    def state_bytes(self) -> dict[str, int]:
        """Bytes reserved for each stage's caches and rows."""
        ...

    def prefill(self, slot: int, position: int, tokens: int, wanted: Ids) -> npt.NDArray[np.float32]:
        """Append the tokens at `[position, position + tokens)` of one slot.

        Args:
            slot: whose.
            position: of the first of them.
            tokens: how many, at least 1.
            wanted: ascending int64 `[N]`: which of them get logits.

        Returns:
            Logits float32 `[N, V]`, the caller's own.

        Raises:
            CapacityError: the logits find no room in memory.
        """
        ...

    def step(self, slots: Ids, positions: Ids) -> npt.NDArray[np.float32]:
        """Append a token to some slots.

        Args:
            slots: which, ascending int64 `[n]`.
            positions: where each stands, int64 `[n]`.

        Returns:
            Logits float32 `[n, V]`, the caller's own.
        """
        ...

    def decided(self, slot: int, position: int) -> frozenset[str]:
        """The stages that the data had fire for the token at a position of a slot; it is written in their clocks."""
        ...

    def read(self, slot: int, position: int) -> Written:
        """A copy of what the first `position` tokens of a slot have written; its arrays have a batch of one."""
        ...

    def write(self, slot: int, written: Written, position: int) -> None:
        """Put back what `read` or `Decoder.read` copied of `position` tokens, into any slot; the token log has their ids.

        Raises:
            InputError: it is of another shape or type; nothing was written.
        """
        ...

    def fork(self, source: int, target: int, position: int) -> None:
        """Copy what the first `position` tokens of a slot have written to another; the token log has their ids by now."""
        ...

    def close(self) -> None:
        """Give all memory back; nothing can be called after that."""
        ...
