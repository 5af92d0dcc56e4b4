"""Sequences that join, decode and leave at any step have the logits of sessions of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from programs import CAPACITY, VOCABULARY, ahead, borrowing, forgetful, host_engines, hourglass, info, paged, top_down

from foveal.runtime.batch import Batch
from foveal.runtime.engines.base import Engine
from foveal.runtime.sequence import Sequence as Joined
from foveal.runtime.session import Session

programs = st.one_of(
    st.builds(hourglass, st.integers(2, 5), st.integers(2, 5)),
    st.builds(top_down, st.integers(2, 8)),
    st.builds(ahead, st.integers(2, 4), st.integers(2, 4)),
    st.builds(forgetful, st.integers(2, 4), st.integers(2, 4), st.integers(1, 2)),
    st.builds(borrowing, st.integers(2, 4)),
    st.builds(paged, st.integers(2, 4), st.just(8)),
).map(host_engines)


class Walk:
    """A batch and, for each of its sequences, a session of its own with the same ids; compared after every step."""

    def __init__(self, batch: Batch, alone: Callable[[], Session], tolerance: float) -> None:
        self.batch, self.alone, self.tolerance = batch, alone, tolerance
        self.sessions: dict[Joined, Session] = {}
        self.prompts: dict[Joined, np.ndarray] = {}
        self.ready: set[Joined] = set()

    def join(self, prompt: np.ndarray) -> None:
        sequence = self.batch.join(prompt)
        self.sessions[sequence], self.prompts[sequence] = self.alone(), prompt

    def fork(self, sequence: Joined) -> None:
        forked = self.batch.fork(sequence)
        self.sessions[forked] = self.sessions[sequence].fork()
        if forked.state == "ready":
            self.ready.add(forked)

    def move(self, sequence: Joined) -> None:
        """Out of the batch into a session, and back into another slot."""
        session = self.alone()
        session.restore(self.batch.snapshot(sequence))
        self.leave(sequence)
        moved = self.batch.restore(session.snapshot())
        self.sessions[moved] = session
        self.ready.add(moved)

    def leave(self, sequence: Joined) -> None:
        self.batch.leave(sequence)
        self.forget(sequence)
        self.sessions.pop(sequence)
        self.prompts.pop(sequence, None)

    def forget(self, sequence: Joined) -> None:
        self.ready.discard(sequence)

    def rewind(self, sequence: Joined, tokens: int) -> None:
        self.batch.rewind(sequence, tokens)
        self.sessions[sequence].rewind(tokens)
        if tokens and sequence.state == "ready":
            self.ready.add(sequence)

    def step(self, tokens: dict[Joined, int]) -> None:
        found = self.batch.step(tokens)
        assert set(tokens) <= set(found)
        for sequence, logits in found.items():
            session = self.sessions[sequence]
            if sequence in tokens:
                expected = session.advance([[tokens[sequence]]], last_only=True)
            elif sequence in self.prompts:
                expected = session.advance(self.prompts.pop(sequence)[None], last_only=True)
            else:  # resumed or forked
                continue
            self.ready.add(sequence)
            np.testing.assert_allclose(logits, expected[0, 0], atol=self.tolerance)
            np.testing.assert_array_equal(self.batch.tokens(sequence), session.tokens[0])
        self.ready |= set(found)


def wander(walk: Walk, data: st.DataObject, steps: int, capacity: int, vocabulary: int) -> None:
    """So many random steps, with whatever can be done between them."""
    for _ in range(steps):
        rng = np.random.default_rng(data.draw(st.integers(0, 99)))
        live = sorted(walk.sessions, key=lambda one: one.number)
        settled = [one for one in live if one not in walk.prompts]
        what = data.draw(st.sampled_from(["join", "join", "leave", "pause", "rewind", "fork", "move", "none", "none"]))
        one = data.draw(st.sampled_from(settled)) if settled else None
        if what == "join" and walk.batch.free_slots:
            walk.join(rng.integers(0, vocabulary, data.draw(st.integers(1, 12))))
        elif what == "leave" and live:
            walk.leave(data.draw(st.sampled_from(live)))
        elif what == "pause" and one is not None:
            if one.state == "paused":
                walk.batch.resume(one)
                walk.ready |= {one} if one.state == "ready" else set()
            else:
                walk.batch.pause(one)
                walk.forget(one)
        elif what == "rewind" and one is not None:
            walk.rewind(one, data.draw(st.integers(0, one.position)))
        elif what == "fork" and one is not None and walk.batch.free_slots:
            walk.fork(one)
        elif what == "move" and one is not None:
            walk.move(one)
        takers = sorted(walk.ready, key=lambda one: one.number)
        if data.draw(st.integers(0, 3)) == 0:
            takers = data.draw(st.lists(st.sampled_from(takers), unique=True)) if takers else []
        tokens = {one: int(rng.integers(vocabulary)) for one in takers if one.position < capacity}
        walk.step(tokens)


@given(programs, st.sampled_from(["staggered", "aligned"]), st.integers(1, 6), st.data())
def test_any_interleaving_gives_the_logits_of_sessions(
    engines: list[Engine], policy: Any, slots: int, data: st.DataObject
) -> None:
    """Joins, leaves, pauses, rewinds, forks, moves through a session, steps of a part, prompts in chunks."""
    batch = Batch(engines, info(), slots, policy=policy, prefill_seconds=data.draw(st.sampled_from([0.0, 1.0])))
    walk = Walk(batch, lambda: Session(engines, info()), 1e-5)
    wander(walk, data, 30, CAPACITY, VOCABULARY)
