"""Which stages fire for a token is what a session counts."""

from __future__ import annotations

from random import Random

import pytest
from deciding import random_program
from hypothesis import given
from hypothesis import strategies as st
from programs import VOCABULARY, Program, ahead, forgetful, host_engines, hourglass, info, top_down

from foveal import Session
from foveal.runtime.batches.batch import Batch
from foveal.runtime.batches.fired import FiredStages


@pytest.mark.parametrize("program", [hourglass(2, 3), top_down(4), ahead(2, 3), forgetful(3, 2)])
def test_as_a_session_counts(program: Program) -> None:
    """At every position, the first ones, and far behind them."""
    session, fired = Session(host_engines(program), info()), FiredStages(program)
    session.advance([[0]])
    for position in range(1, 90):
        before = session.fires
        before = dict(before)
        session.advance([[0]])
        counted = tuple(spec.name for spec in program if session.fires[spec.name] > before[spec.name])
        assert fired.at(position) == counted, position


@given(st.randoms())
def test_a_batch_knows_what_the_data_decided(choose: Random) -> None:
    """For each of its sequences, after a step that fired stages for one and not for the other."""
    program = random_program(choose)
    batch, sessions = Batch(host_engines(program), info(), 2), [Session(host_engines(program), info()) for _ in range(2)]
    sequences = [batch.join([choose.randrange(VOCABULARY)]) for _ in sessions]
    batch.step()
    for sequence, session in zip(sequences, sessions, strict=True):
        session.advance([batch.tokens(sequence)])
    for _ in range(12):
        ids = [choose.randrange(VOCABULARY) for _ in sessions]
        batch.step(dict(zip(sequences, ids, strict=True)))
        for sequence, session, token in zip(sequences, sessions, ids, strict=True):
            before = dict(session.fires)
            session.advance([[token]])
            counted = tuple(spec.name for spec in program if session.fires[spec.name] > before[spec.name])
            assert batch.fired(sequence) == counted


def test_remembers_no_more_than_some_periods() -> None:
    """However long sequences are."""
    fired = FiredStages(hourglass(2, 2))
    for position in range(1000):
        fired.at(position)
    assert len(fired._found) == 12
