"""Stages whose firings the data decides: a clock that is a log, in sessions and in batches."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from batches import BatchWalk, wander
from hypothesis import given
from hypothesis import strategies as st
from programs import CAPACITY, DIM, TOKENS, VOCABULARY, Program, host_engines, info, stage

from foveal import InputError
from foveal.contract import InputSpec
from foveal.runtime.batches.batch import Batch
from foveal.runtime.clocks import LoggedClock
from foveal.runtime.rows import Array, TokenLog
from foveal.runtime.session import Session


def dynamic(count: int) -> Program:
    """A middle stage that reads the newest `count` rows when some token fires it, and whose newest row every token reads."""
    return (
        stage("pre", 1, [TOKENS]),
        stage("middle", 1, [InputSpec(kind="window", source="pre", count=count)]),
        stage("post", 1, [InputSpec(kind="stream", source="pre"), InputSpec(kind="context", source="middle")], output="logits"),
    )


def meaning(count: int, opens: Array, ids: Array) -> Array:
    """Logits `[L, V]` of ids `[L]`, token by token and with nothing kept but what `FakeEngine` remembers."""
    mixes: dict[str, list[Array]] = {"pre": [], "middle": [], "post": []}
    rows: dict[str, list[Array]] = {"pre": [np.zeros(DIM)] * count, "middle": [np.zeros(DIM)]}

    def fire(name: str, read: list[list[Array]]) -> Array:
        mix = sum(np.cos(place + 1) * row for source in read for place, row in enumerate(source))
        mixes[name].append(np.asarray(mix))
        return np.sin(sum(mixes[name]) + mix)

    logits = []
    for token in ids.tolist():
        rows["pre"].append(fire("pre", [[np.full(DIM, token + 1.0)]]).astype(np.float32))
        if opens[token]:
            rows["middle"].append(fire("middle", [rows["pre"][-count:]]).astype(np.float32))
        y = fire("post", [rows["pre"][-1:], rows["middle"][-1:]])
        logits.append(y.sum() * np.arange(1, VOCABULARY + 1) / VOCABULARY)
    return np.stack(logits)


boundaries = st.lists(st.booleans(), min_size=VOCABULARY, max_size=VOCABULARY).map(np.array)


@given(st.integers(1, 4), boundaries, st.randoms())
def test_a_session_in_any_chunks_means_what_the_program_says(count: int, opens: Array, choose: Random) -> None:
    """With rewinds, snapshots and forks between them, over random boundaries."""
    clocks = {"middle": lambda capacity: LoggedClock(opens, capacity)}
    session = Session(host_engines(dynamic(count)), info(), clocks=clocks)
    kept = session.snapshot()
    for _ in range(8):
        ids = np.array([[choose.randrange(VOCABULARY) for _ in range(choose.randint(1, 9))]])
        logits = session.advance(ids)[0]
        expected = meaning(count, opens, session.tokens[0])
        np.testing.assert_allclose(logits, expected[-ids.shape[1] :], atol=1e-4)
        what = choose.choice(["rewind", "fork", "keep", "restore", "none"])
        if what == "rewind":
            session.rewind(choose.randint(0, session.position))
        elif what == "fork":
            session = session.fork()
        elif what == "keep":
            kept = session.snapshot()
        elif what == "restore":
            session.restore(kept)


@given(st.integers(1, 4), boundaries, st.integers(1, 5), st.randoms())
def test_a_batch_of_sequences_with_boundaries_of_their_own(count: int, opens: Array, slots: int, choose: Random) -> None:
    """Each fires by its own text, whatever the others do."""
    clocks, engines = {"middle": lambda capacity: LoggedClock(opens, capacity)}, host_engines(dynamic(count))
    batch = Batch(engines, info(), slots, prefill_seconds=0, clocks=clocks)
    wander(BatchWalk(batch, lambda: Session(engines, info(), clocks=clocks), 1e-5), choose, 30, CAPACITY, VOCABULARY)


class TestALoggedClock:
    """From tokens to firings and back."""

    def clock(self, ids: list[int]) -> LoggedClock:
        """Ids below 2 do not fire."""
        tokens = TokenLog.allocate(1, 8, 1)
        tokens.write(0, np.array([ids]))
        clock = LoggedClock(np.array([False, False, True]), 8)
        clock.see(tokens, 0, len(ids))
        return clock

    def test_counts(self) -> None:
        """The firings of any run of tokens, and the token of any firing."""
        clock = self.clock([0, 2, 1, 2, 2, 0])
        assert [clock.firings(start, 1) for start in range(6)] == [
            *(range(0), range(1), range(1, 1), range(1, 2), range(2, 3), range(3, 3))
        ]
        assert clock.firings(1, 4) == range(3)
        assert [clock.fired_by(firing) for firing in range(3)] == [1, 3, 4]
        assert [clock.firings_within(tokens) for tokens in range(7)] == [0, 0, 1, 1, 2, 3, 3]
        assert clock.firings(-1, 1) == range(0)

    def test_sequences_in_step_must_agree(self) -> None:
        """A session of several sequences has one clock."""
        clocks = {"middle": lambda capacity: LoggedClock(np.arange(VOCABULARY) > 20, capacity)}
        session = Session(host_engines(dynamic(2)), info(), 2, clocks=clocks)
        session.advance([[3, 30], [4, 40]])
        with pytest.raises(InputError, match=r"append them to a batch \(model.batch\)"):
            session.advance([[3], [40]])
