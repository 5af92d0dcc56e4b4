"""A batch beside sessions of one sequence each: whatever is done to both, their logits are the same."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np

from foveal.contract import rewinds_of
from foveal.runtime.batches.batch import Batch
from foveal.runtime.batches.sequence import Sequence as Joined
from foveal.runtime.session import Session


class BatchWalk:
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
        """Logits are left where some of the newest step's tokens are."""
        left = None if sequence.rows is None else sequence.rows[: max(len(sequence.rows) - tokens, 0)]
        before = sequence.logits
        self.batch.rewind(sequence, tokens)
        self.sessions[sequence].rewind(tokens)
        expected = before if not tokens else left[-1] if left is not None and len(left) else None
        assert (sequence.logits is None) == (expected is None)
        if expected is not None:
            np.testing.assert_array_equal(sequence.logits, expected)
        if tokens and sequence.state == "ready":
            self.ready.add(sequence)

    def most_back(self, sequence: Joined) -> int:
        """Tokens that it can take back: a model that compacts its past limits them."""
        most = rewinds_of(self.batch.specs)
        return (
            sequence.position if most is None else max(min(sequence.position, most - sequence.reached + sequence.position), 0)
        )

    def step(self, tokens: dict[Joined, int | list[int]]) -> None:
        found = self.batch.step(tokens)
        assert set(tokens) <= set(found)
        for sequence, logits in found.items():
            session = self.sessions[sequence]
            if sequence in tokens and isinstance(given := tokens[sequence], list):
                expected = session.advance([given])
                assert logits.shape == expected[0].shape
                logits, expected = logits.ravel(), expected.reshape(1, 1, -1)
            elif sequence in tokens:
                expected = session.advance([[tokens[sequence]]], last_only=True)
            elif sequence in self.prompts:
                expected = session.advance(self.prompts.pop(sequence)[None], last_only=True)
            else:  # resumed or forked
                continue
            self.ready.add(sequence)
            np.testing.assert_allclose(logits, expected[0, 0], atol=self.tolerance)
            np.testing.assert_array_equal(self.batch.tokens(sequence), session.tokens[0])
        self.ready |= set(found)


def wander(walk: BatchWalk, choose: Random, steps: int, capacity: int, vocabulary: int) -> None:
    """So many random steps, with whatever can be done between them."""
    for _ in range(steps):
        live = sorted(walk.sessions, key=lambda one: one.number)
        settled = [one for one in live if one not in walk.prompts]
        what = choose.choice(["join", "join", "leave", "pause", "rewind", "fork", "move", "none", "none"])
        one = choose.choice(settled) if settled else None
        if what == "join" and walk.batch.free_slots:
            walk.join(np.array([choose.randrange(vocabulary) for _ in range(choose.randint(1, 12))]))
        elif what == "leave" and live:
            walk.leave(choose.choice(live))
        elif what == "pause" and one is not None:
            if one.state == "paused":
                walk.batch.resume(one)
                walk.ready |= {one} if one.state == "ready" else set()
            else:
                walk.batch.pause(one)
                walk.forget(one)
        elif what == "rewind" and one is not None:
            walk.rewind(one, choose.randint(0, walk.most_back(one)))
        elif what == "fork" and one is not None and walk.batch.free_slots:
            walk.fork(one)
        elif what == "move" and one is not None:
            walk.move(one)
        takers = sorted(walk.ready, key=lambda one: one.number)
        if choose.randrange(4) == 0:
            takers = choose.sample(takers, choose.randint(0, len(takers)))
        walk.step({one: tokens_of(choose, one, capacity, vocabulary) for one in takers if one.position < capacity})


def tokens_of(choose: Random, sequence: Joined, capacity: int, vocabulary: int) -> int | list[int]:
    """Mostly one; of some sequences several, of which the walk may take back a part."""
    if choose.randrange(4):
        return choose.randrange(vocabulary)
    count = min(choose.choice([1, 2, 3, 5, 9]), capacity - sequence.position)
    return [choose.randrange(vocabulary) for _ in range(count)]
