"""A batch decoder driven as a batch drives it, each of its slots held against a session that goes the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from precisions import distance

from foveal.contract import BEGINNING, begins_ahead
from foveal.runtime.batches.batch_decoder import BatchDecoder
from foveal.runtime.batches.ranges import Range, ranges_of
from foveal.runtime.rows import Array, TokenLog
from foveal.runtime.session import Session

SLOTS = 4
_slot = st.integers(0, SLOTS - 1)
ways = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.integers(1, 2**SLOTS - 1), st.integers(1, 9)),
        st.tuples(st.just("step"), st.integers(1, 2**SLOTS - 1), st.integers(1, 9)),
        st.tuples(st.just("prefill"), _slot, st.sampled_from([1, 2, 5, 9, 24])),
        st.tuples(st.just("prefill"), _slot, st.sampled_from([1, 2, 5, 9, 24])),
        st.tuples(st.just("rewind"), _slot, st.integers(1, 20)),
        st.tuples(st.just("leave"), _slot, st.just(0)),
        st.tuples(st.sampled_from(["fork", "move"]), _slot, _slot),
    ),
    min_size=3,
    max_size=14,
)
"""What may be done with slots, in any order; a step is of slots by their bits, and so many in a row."""


def everything(fires: Array, passable: Array) -> list[Range]:
    """In the place of `ranges_of`: all that fires, and all that may be run along."""
    return ranges_of(fires | passable, passable) if fires.any() else []


class Slots:
    """Some slots, each with the session that it is held against.

    Args:
        open_decoder: on a token log `[slots, lead + capacity]`.
        sessions: of one sequence and one capacity, a slot's each.
        tolerance: of logits, as a share of the largest.

    Attributes:
        largest: error so far.
    """

    def __init__(
        self, open_decoder: Callable[[TokenLog, int, int], BatchDecoder], sessions: Sequence[Session], tolerance: float = 1e-5
    ) -> None:
        self.sessions, self.tolerance, self.largest = sessions, tolerance, 0.0
        self._random = np.random.default_rng(0)
        specs, self.capacity = sessions[0].specs, sessions[0].capacity
        lead = max((given.shift for spec in specs for given in spec.inputs if given.source is None), default=0)
        self._begins_ahead, self._rewinds = begins_ahead(specs), sessions[0]._rewinds
        self.tokens = TokenLog.allocate(lead, self.capacity, len(sessions))
        self.decoder: Any = open_decoder(self.tokens, len(sessions), self.capacity)

    def take(self, what: str, which: int, number: int) -> None:
        """Do one thing."""
        if what == "step":
            for _ in range(number):
                self.step([slot for slot in range(len(self.sessions)) if which >> slot & 1])
        elif what == "prefill":
            self.prefill(which, number)
        elif what == "rewind":
            session = self.sessions[which]
            most = (
                session.position
                if self._rewinds is None
                else min(session.position, self._rewinds - session._reached + session.position)
            )
            session.rewind(max(min(number, most), 0))
        elif what == "leave":
            self.sessions[which].reset()
        elif which != number:
            self.copy(what, which, number)

    def prefill(self, slot: int, tokens: int, last_only: bool = False) -> None:
        """Append tokens to one slot, as far as there is room."""
        position = self.sessions[slot].position
        ids = self._new_ids(1, min(tokens, self.capacity - position))
        if ids.size == 0:
            return
        self._begin(slot)
        self.tokens.of(slot).write(position, ids)
        wanted = np.array([ids.shape[1] - 1]) if last_only else np.arange(ids.shape[1])
        found = self.decoder.prefill(slot, position, ids.shape[1], wanted)
        self._compare(found, self.sessions[slot].advance(ids, last_only)[0], f"slot {slot}, prefill from {position}")

    def step(self, slots: Sequence[int]) -> None:
        """Append a token to some slots, but to those that are full."""
        slots = [slot for slot in slots if self.sessions[slot].position < self.capacity]
        if not slots:
            return
        ids, positions = self._new_ids(len(slots), 1), [self.sessions[slot].position for slot in slots]
        for slot, new, position in zip(slots, ids, positions, strict=True):
            self._begin(slot)
            self.tokens.of(slot).write(position, new[None])
        found = self.decoder.step(np.array(slots), np.array(positions))
        expected = [self.sessions[slot].advance(new[None])[0, 0] for slot, new in zip(slots, ids, strict=True)]
        self._compare(found, np.stack(expected), f"slots {slots} at {positions}")

    def copy(self, what: str, source: int, target: int) -> None:
        """Let a slot go on from where another is."""
        position = self.sessions[source].position
        self.sessions[target].restore(self.sessions[source].snapshot())
        self.tokens.array[target] = self.tokens.array[source]
        if what == "fork":
            self.decoder.fork(source, target, position)
        else:
            self.decoder.write(target, self.decoder.read(source, position), position)

    def _begin(self, slot: int) -> None:
        if self.sessions[slot].position == 0 and self._begins_ahead:
            assert self.decoder.prefill(slot, BEGINNING, 1, np.empty(0, np.int64)).shape[0] == 0

    def _new_ids(self, sequences: int, tokens: int) -> Array:
        ids: Array = self._random.integers(0, self.sessions[0].model.vocab_size, (sequences, max(tokens, 0)))
        return ids

    def _compare(self, found: Array, expected: Array, where: str) -> None:
        assert found.shape == expected.shape
        error = distance(found, expected)
        self.largest = max(self.largest, error)
        assert error <= self.tolerance, f"{where}: {error:.1e} of the largest logit"
