"""What the interpreters ask of an engine library: small protocols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ...contract import StageSpec
from ..rows import Array, Block, Ids


class BoundStage(Protocol):
    """A stage's engine with the caches of one session. Not thread-safe; a session drives it from one thread."""

    @property
    def caches(self) -> Sequence[Array]:
        """The stage's caches `[B, H, rows, W]` in the order of its specification, updated in place by `run`."""
        ...

    @property
    def copied_bytes(self) -> int:
        """Bytes of state the host has copied so far because the engine could not work in place."""
        ...

    def borrow(self, caches: Sequence[Array]) -> None:
        """Read from now on these caches of other stages, in the order of the stage's `borrows`."""
        ...

    def run(self, first: int, firings: int, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
        """Run firings `[first, first + firings)`.

        Args:
            first: index of the first firing.
            firings: how many, at least 1.
            inputs: one block for each of `contract.read_tensors`, in their order: of an input by stride ids int64
                `[B, count * firings]` or rows `[count * firings, B, D]`; of others a block of rows, and places in it.
            output: where to write: rows `[output_rows * firings, B, D]`, or logits `[B, N, V]`.
            logit_rows: int64 `[N]`, for the stage that gives logits.
        """
        ...


class Engine(Protocol):
    """One stage's compiled graph: immutable, shared by all sessions."""

    @property
    def spec(self) -> StageSpec: ...

    def bind(self, batch: int, firings: int) -> BoundStage:
        """Allocate zeroed caches for `batch` sequences and so many firings."""
        ...


class SlotsStage(BoundStage, Protocol):
    """A stage's engine with the caches of some slots of a batch, each of which stands at a firing of its own."""

    def run_each(self, firsts: Ids, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
        """Run one firing of each sequence: `firsts` int64 `[B]`; the others as of `run`, with `firings` 1."""
        ...


class SlotsEngine(Engine, Protocol):
    """An engine that can also work on some sequences of a batch, each at a firing of its own."""

    @property
    def takes_each(self) -> bool:
        """Whether it was built so that sequences of one call may stand at firings of their own."""
        ...

    def new_caches(self, batch: int, firings: int) -> Sequence[Array]:
        """Zeroed caches `[B, H, rows, W]` for so many firings, in the order of the stage's specification."""
        ...

    def attach(self, caches: Sequence[Array], batch: int, firings: int) -> SlotsStage:
        """Work on caches that are there, with room for so many firings: views of so many slots of a batch."""
        ...
