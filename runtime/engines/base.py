"""What the interpreter asks of an engine library: two small protocols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ...contract import StageSpec
from ..rows import Array, Block


class BoundStage(Protocol):
    """A stage's engine with the caches of one session. Not thread-safe; a session drives it from one thread."""

    @property
    def caches(self) -> Sequence[Array]:
        """Keys and values of each layer, `[B, H, S, Dh]`, updated in place by `run`; axis 2 counts firings."""
        ...

    @property
    def copied_bytes(self) -> int:
        """Bytes of state the host has copied so far because the engine could not work in place."""
        ...

    def run(self, first: int, firings: int, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
        """Run firings `[first, first + firings)`.

        Args:
            first: index of the first firing, which is the position of its row in the caches.
            firings: how many, at least 1.
            inputs: one block per input of the stage, in its order: ids int64 `[B, firings]`, or rows `[count * firings, B, D]`.
            output: where to write: rows `[output_rows * firings, B, D]`, or logits `[B, N, V]`.
            logit_rows: int64 `[N]`, for the stage that gives logits.
        """
        ...


class Engine(Protocol):
    """One stage's compiled graph: immutable, shared by all sessions."""

    @property
    def spec(self) -> StageSpec: ...

    def bind(self, batch: int, rows: int) -> BoundStage:
        """Allocate zeroed caches of `rows` rows for `batch` sequences."""
        ...
