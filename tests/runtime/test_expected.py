"""Firing as often as is expected: whatever ids say."""

from __future__ import annotations

import numpy as np
import pytest
from deciding import newest, span
from programs import CAPACITY, TOKENS, host_engines, hourglass, info, stage

from foveal.contract import ClockSpec, InputSpec
from foveal.runtime import threads
from foveal.runtime.expected import expected_period, expected_schedule
from foveal.runtime.session import Session

NEVER = ClockSpec(stage="pre", threshold=2.0, tokens_per_firing=4.5)
DEEPER = ClockSpec(stage="down", threshold=2.0, tokens_per_firing=9)
POST = stage("post", 1, [InputSpec(kind="stream", source="pre"), newest("down")], output="logits")
ONE = (stage("pre", 1, [TOKENS]), stage("down", 1, [span("pre")], clock=NEVER), POST)
NESTED = (*ONE[:2], stage("main", 1, [newest("down")], clock=DEEPER), POST)


def test_boundaries_come_when_they_are_due() -> None:
    """The first row, and then one in 4.5."""
    (decisions,) = expected_schedule(ONE, 18).values()
    assert np.flatnonzero(decisions.made).tolist() == [0, 5, 9, 14, 18]


def test_a_nested_clock_counts_rows() -> None:
    """One in 9 tokens is one in two of the rows that come once in 4.5."""
    assert np.flatnonzero(expected_schedule(NESTED, 18)[DEEPER].made).tolist() == [0, 2, 4]


def test_a_session_fires_what_is_expected() -> None:
    """By its values no stage would ever fire."""
    session = Session(host_engines(NESTED), info())
    session.advance(np.zeros((1, 36), np.int64))
    assert session.fires == {"pre": 36, "down": 0, "main": 0, "post": 36}
    session.reset()
    session.follow(expected_schedule(NESTED, CAPACITY))
    session.advance(np.zeros((1, 36), np.int64))
    assert session.fires == {"pre": 72, "down": 8, "main": 4, "post": 72}


def test_fixed_strides_have_nothing_to_follow() -> None:
    """Their periods are the strides'."""
    assert expected_schedule(hourglass(2, 3), 50) == {}
    assert expected_period(hourglass(2, 3), 1) == 6


@pytest.mark.parametrize(("at_least", "period"), [(1, 4), (16, 18), (18, 18), (19, 22)])
def test_periods_of_what_is_expected(at_least: int, period: int) -> None:
    """Whole multiples of 4.5, as whole numbers allow."""
    assert expected_period(ONE, at_least) == period


def test_the_race_of_thread_counts_weighs_firing_steps() -> None:
    """Random ids, or zeros, fire as they like: a step is timed as often with the coarse stage as is expected of text."""
    session = Session(host_engines(ONE), info())
    assert threads._decode_seconds(session) > 0
    assert session.fires == {"pre": 4, "down": 1, "post": 4}
