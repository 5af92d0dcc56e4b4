"""Which stages fire for a token is what a session counts."""

from __future__ import annotations

import pytest
from programs import Program, ahead, forgetful, host_engines, hourglass, info, top_down

from foveal import Session
from foveal.runtime.service.fired import FiredStages


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


def test_remembers_no_more_than_some_periods() -> None:
    """However long sequences are."""
    fired = FiredStages(hourglass(2, 2))
    for position in range(1000):
        fired.at(position)
    assert len(fired._found) == 12
