"""What a session drives: the state of some sequences and what fires the stages on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..contract import StageSpec
from .rows import Array
from .sampling import SamplingParams
from .schedules import Schedule

Observer = Callable[[StageSpec, int, int], None]
"""Called after every engine call with the stage, the number of firings and the nanoseconds it took.

The decoder's `rows` has the stage's new rows by then, and stages that have yet to fire read what `write_rows` puts there.
"""


@dataclass(frozen=True)
class Written:
    """A copy of all that was written up to some position: by stage, rows `[lead + rows, B, D]` and caches `[B, H, S, Dh]`.

    The stage that gives logits keeps no rows: its place is None. `boundaries` are the tokens that made one, int64 `[n]`, for
    every clock that the data decides.
    """

    rows: tuple[Array | None, ...]
    caches: tuple[tuple[Array, ...], ...]
    boundaries: tuple[Array, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        kept = [rows for rows in self.rows if rows is not None]
        return sum(array.nbytes for array in (*kept, *(cache for caches in self.caches for cache in caches), *self.boundaries))


class Decoder(Protocol):
    """Fires the stages of a model over tokens, in dataflow order. State is append-only, addressed by absolute index."""

    observer: Observer | None

    @property
    def fires(self) -> dict[str, int]:
        """Firings of every stage so far."""
        ...

    @property
    def copied_bytes(self) -> int:
        """Bytes of state copied so far because an engine could not work in place."""
        ...

    @property
    def state_bytes(self) -> dict[str, int]:
        """Bytes reserved for each stage's caches and rows."""
        ...

    def run(self, position: int, tokens: int, wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Append the tokens at `[position, position + tokens)` of the token log.

        Args:
            position: of the first of them.
            tokens: how many, at least 1.
            wanted: ascending int64 `[N]`: which of them get logits.

        Returns:
            Logits float32 `[B, N, V]`, the caller's own.
        """
        ...

    @property
    def draws(self) -> bool:
        """Whether it can draw tokens itself, where the logits are."""
        ...

    def draw(
        self, position: int, count: int, params: SamplingParams, uniform: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.int64]:
        """Append the token at `position` of the token log, draw the next, append that, and so on.

        Args:
            position: of the token to begin with.
            count: how many to append, and to draw.
            params: temperature, top_k, top_p and min_p are followed.
            uniform: a number of [0, 1) for each draw, `[count, B]`.

        Returns:
            The tokens drawn, int64 `[B, count]`. All but the last are appended; they are not in the token log.

        Raises:
            ConfigError: it draws none.
        """
        ...

    def rows(self, stage: int, position: int) -> Array | None:
        """Rows `[lead + rows, B, D]` that a stage gave up to `position`; None for the one that gives logits."""
        ...

    def write_rows(self, stage: int, rows: Array) -> None:
        """Overwrite the first rows `[lead + rows, B, D]` that a stage gave, to see what others make of given rows."""
        ...

    def schedule(self, position: int) -> Schedule:
        """What the data decided of the first `position` tokens, of the first sequence."""
        ...

    def follow(self, schedule: Schedule | None) -> None:
        """Let boundaries be those of a schedule from now on, whatever the values say; None: what they say."""
        ...

    def read(self, position: int) -> Written:
        """Copy what was written up to `position`."""
        ...

    def write(self, written: Written, position: int) -> None:
        """Put back what `read` copied of so many tokens, here or in a decoder of the same shape.

        Raises:
            InputError: it is of another shape or type; nothing was written.
        """
        ...

    def close(self) -> None:
        """Give the memory back; the decoder is of no use after that."""
        ...
