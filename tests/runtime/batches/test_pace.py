"""Chunks of a prompt keep to a time."""

from __future__ import annotations

import pytest

from foveal.runtime.batches.pace import Pace


@pytest.mark.parametrize(("fixed", "by_token"), [(0.001, 0.0002), (0.004, 0.00001), (0.0, 0.001), (0.003, 0.002)])
def test_chunks_come_to_take_the_time(fixed: float, by_token: float) -> None:
    """Whatever a call costs by itself; no chunk is empty."""
    pace, took = Pace(0.005), []
    for _ in range(40):
        chunk = pace.chunk(0)
        took.append(fixed + by_token * chunk)
        pace.took(chunk, took[-1])
    ideal = max((0.005 - fixed) / by_token, 1)
    assert ideal / 2 <= chunk <= max(ideal * 1.5, 1)
    assert sum(took[20:]) / 20 < 0.006 or chunk == 1


def test_short_prompts_say_nothing_of_long_ones() -> None:
    """A prompt of two tokens that was quick lets no chunk grow, one that was slow makes it smaller."""
    pace = Pace(0.005)
    pace.took(2, 0.001)
    assert pace.chunk(0) == 32
    pace.took(2, 0.010)
    assert pace.chunk(0) == 1


def test_a_second_prompt_has_the_time_that_is_left() -> None:
    """Of the first; none, once it is used up."""
    pace = Pace(0.005)
    assert [pace.chunk(spent) for spent in (0, 0.0025, 0.005, 0.02)] == [32, 16, 0, 0]


def test_no_time_is_one_token_in_each_step() -> None:
    """Every prompt ends."""
    pace = Pace(0)
    for _ in range(3):
        assert (pace.chunk(0), pace.chunk(0.001)) == (1, 0)
        pace.took(1, 0.001)
