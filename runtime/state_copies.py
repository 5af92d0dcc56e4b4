"""Copies of recurrent state: what a stage's state was at some of its firings, so that a rewind need not run all of them again.

Rows and keys stay where they were written, so a rewind is reading less of them. A recurrent state is replaced by every firing.
It is taken from the newest copy that is old enough, and the stage runs again on the rows since: they are all in the logs. So a
rewind costs at most `every` firings of such a stage, and is exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..contract import RECURRENT_FIRINGS, StageSpec
from ..errors import ConfigError
from .capacity import whole
from .rows import Array

COPIES_BYTES = 64 << 20
"""Of memory for the copies of a sequence, unless asked otherwise."""
_LEAST_EVERY = 16


class StateCopies:
    """Of one stage of a decoder.

    Args:
        states: its recurrent caches, where they are.
        every: firings from one copy to the next.
    """

    def __init__(self, states: Sequence[Array], every: int) -> None:
        self._states, self.every = states, every
        self._copies: dict[int, Sequence[Any]] = {}

    def _copy(self) -> Sequence[Any]:
        """Of the states as they are."""
        return [state.copy() for state in self._states]

    def _put(self, copy: Sequence[Any] | None) -> None:
        """Let the states be these; None: zeros."""
        for index, state in enumerate(self._states):
            state[...] = 0 if copy is None else copy[index]

    def keep(self, end: int) -> None:
        """The state is now what it is before firing `end`; copy it if its turn has come."""
        if end % self.every == 0:
            self._copies[end] = self._copy()

    def begin_at(self, firing: int) -> None:
        """The state is what it was before a firing, and nothing is known of those before it."""
        self._copies = {firing: self._copy()}

    def go_back(self, firing: int) -> int:
        """Let the state be that of a firing at or before this one, and forget what comes after; returns which."""
        self._copies = {end: copy for end, copy in self._copies.items() if end <= firing}
        found = max(self._copies, default=0)
        self._put(self._copies[found] if found else None)
        return found

    def take_over(self, other: StateCopies, firing: int) -> None:
        """Those of another decoder, up to a firing; a copy is never written to, so both may have it."""
        self._copies = {end: copy for end, copy in other._copies.items() if end <= firing}

    def calls(self, firings: range, end: int) -> Iterator[range]:
        """Firings in calls that are not too large, and before them those since the newest copy, if the state is to go back.

        A copy is kept between two calls: each has to be done when the next one is asked for.

        Args:
            firings: to run.
            end: the firing after the last that was run.
        """
        start = end if end == firings.start else self.go_back(firings.start)
        size = min(self.every, RECURRENT_FIRINGS)
        while start < firings.stop:
            edge = firings.start if start < firings.start else firings.stop
            stop = min(start - start % size + size, edge)
            yield range(start, stop)
            self.keep(stop)
            start = stop


def checked_copies_bytes(copies_bytes: object) -> int:
    """A number of bytes; raises ConfigError for what is none."""
    found = whole("copies_bytes", copies_bytes, ConfigError)
    if found < 0:
        raise ConfigError(f"copies_bytes must be at least 0, got {found}: bytes for copies of recurrent state")
    return found


def interval_of(specs: Sequence[StageSpec], batch: int, capacity: int, budget_bytes: int) -> int:
    """Firings from one copy to the next, so that the copies of all stages stay within so many bytes: a power of two.

    Where the budget holds not even one copy there are none, and a rewind runs a stage from its beginning.
    """
    state_bytes = sum(
        4 * batch * cache.heads * cache.rows * cache.width for spec in specs for cache in spec.caches if cache.recurrent
    )
    every = _LEAST_EVERY
    while every <= capacity and (capacity // every) * state_bytes > budget_bytes:
        every *= 2
    return every
