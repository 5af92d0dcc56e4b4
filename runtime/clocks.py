"""When the stages of a sequence fire: a clock leads from tokens to firings, and back.

A stage of a fixed stride is its own clock, by arithmetic (`StageSpec.firings`, `fired_by`, `firings_within`). Where the data
decides, the clock is a log: for every token how often the stage had fired by then. It only grows, and rewinding a sequence is
reading it further down, at any phase, as with rows and caches (docs/adr/0022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..contract import StageSpec
from ..errors import InputError
from .rows import Ids, TokenLog


class Clock(Protocol):
    """From tokens of a sequence to a stage's firings, which are numbered from 0."""

    def firings(self, start: int, tokens: int) -> range:
        """Indices of the firings that tokens `[start, start + tokens)` cause."""
        ...

    def fired_by(self, firing: int) -> int:
        """The token that causes a firing."""
        ...

    def firings_within(self, tokens: int) -> int:
        """How often the first so many tokens fire it."""
        ...

    def capacity_firings(self, capacity_tokens: int) -> int:
        """Firings that there must be room for, at least 1."""
        ...


class LoggedClock:
    """A clock that is written as tokens come: `count[t]` is how often the first t tokens fire the stage.

    Args:
        opens: bool `[V]`, by token id, whether a token fires the stage.
        capacity: tokens that there is room for.
    """

    def __init__(self, opens: npt.NDArray[np.bool_], capacity: int) -> None:
        self._opens, self._known = opens, 0
        self._count = np.zeros(capacity + 1, np.int64)

    def see(self, tokens: TokenLog, start: int, stop: int) -> None:
        """Tokens `[start, stop)` of a sequence are in its log; those before them were seen, or are looked at now."""
        start = min(start, self._known)
        ids = tokens.array[:, tokens.lead + start : tokens.lead + stop]
        fires = self._opens[ids[0]]
        if len(ids) > 1 and (self._opens[ids] != fires).any():
            raise InputError(
                "sequences of one session fire a stage whose firings the data decides in step, and these ids do not; "
                "append them to a batch (model.batch), in which each has its own clock"
            )
        self._count[start + 1 : stop + 1] = self._count[start] + np.cumsum(fires)
        self._known = stop

    def forget(self) -> None:
        """The token log holds another sequence from now on."""
        self._known = 0

    def firings(self, start: int, tokens: int) -> range:
        """As `Clock.firings`."""
        return range(int(self._count[max(start, 0)]), int(self._count[max(start + tokens, 0)]))

    def fired_by(self, firing: int) -> int:
        """As `Clock.fired_by`."""
        return int(np.searchsorted(self._count[: self._known + 1], firing + 1)) - 1

    def firings_within(self, tokens: int) -> int:
        """As `Clock.firings_within`."""
        return int(self._count[tokens])

    def capacity_firings(self, capacity_tokens: int) -> int:
        """As `Clock.capacity_firings`: each token may fire it."""
        return capacity_tokens


Clocks = Mapping[str, Callable[[int], LoggedClock]]
"""For stages whose firings the data decides, by name: their clock, given the tokens that there must be room for."""


def newest_rows(clock: Clock, tokens: Ids, rows: int) -> Ids:
    """Index of the newest row that a stage has given once so many tokens are seen, with `rows` of each firing; -1: none."""
    return np.array([clock.firings_within(seen) for seen in tokens.tolist()]) * rows - 1


def clocks_of(specs: Sequence[StageSpec], clocks: Clocks, capacity: int) -> dict[str, Clock]:
    """The clock of every stage, of one sequence."""
    return {spec.name: clocks[spec.name](capacity) if spec.name in clocks else spec for spec in specs}
