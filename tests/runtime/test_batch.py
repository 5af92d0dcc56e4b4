"""Sequences that join, decode and leave at any step have the logits of sessions of their own."""

from __future__ import annotations

from random import Random
from typing import Any

from batches import BatchWalk, wander
from hypothesis import given
from hypothesis import strategies as st
from programs import CAPACITY, VOCABULARY, ahead, borrowing, forgetful, host_engines, hourglass, info, paged, top_down

from foveal.runtime.batch import Batch
from foveal.runtime.engines.base import Engine
from foveal.runtime.session import Session

programs = st.one_of(
    st.builds(hourglass, st.integers(2, 5), st.integers(2, 5)),
    st.builds(top_down, st.integers(2, 8)),
    st.builds(ahead, st.integers(2, 4), st.integers(2, 4)),
    st.builds(forgetful, st.integers(2, 4), st.integers(2, 4), st.integers(1, 2)),
    st.builds(borrowing, st.integers(2, 4)),
    st.builds(paged, st.integers(2, 4), st.just(8)),
).map(host_engines)


@given(programs, st.sampled_from(["staggered", "aligned"]), st.integers(1, 6), st.booleans(), st.randoms())
def test_any_interleaving_gives_the_logits_of_sessions(
    engines: list[Engine], policy: Any, slots: int, is_patient: bool, choose: Random
) -> None:
    """Joins, leaves, pauses, rewinds, forks, moves through a session, steps of a part, prompts in chunks."""
    batch = Batch(engines, info(), slots, policy=policy, prefill_seconds=float(is_patient))
    walk = BatchWalk(batch, lambda: Session(engines, info()), 1e-5)
    wander(walk, choose, 30, CAPACITY, VOCABULARY)
