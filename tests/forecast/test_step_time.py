"""Seconds of a decode step, by hand; and what may never be slower."""

from __future__ import annotations

import pytest
from forecasting import rates, shape, stage
from hypothesis import given
from hypothesis import strategies as st

from foveal.forecast.caching import steps_behind
from foveal.forecast.rates import Reads
from foveal.forecast.step_time import StepTime, mean_of, step_times, worst_of

ONE = shape(stage("1"))
TWO = shape(stage("4", 4, 5000), stage("1"))


def test_a_step_by_hand() -> None:
    """10 s of weights, 9 of nine rows; a stage, a layer, two products; the host's 3 s and four logits."""
    (step,) = step_times(steps_behind(ONE, 8), ONE, rates())
    assert step == StepTime(memory=10 + 9, launch=1 + 2 + 2 * 0.5, host=3 + 4 * 0.25)
    assert (step.seconds, step.bound) == (27.0, "memory bandwidth")


def test_bytes_in_a_cache_are_told_from_memorys() -> None:
    """Half of 1,090 bytes are there: of weights at 400 a second, where memory gives 100; of nine rows at 10, as memory."""
    fast = rates(cache_bytes=545, weights=Reads(400.0, 100.0), flops=None)
    (step,) = step_times(steps_behind(ONE, 8), ONE, fast)
    assert (step.cache, step.memory) == pytest.approx((500 / 400 + 45 / 10, 500 / 100 + 45 / 10))


@given(cache=st.floats(0, 10_000), more=st.floats(0, 10_000))
def test_a_larger_cache_is_never_slower(cache: float, more: float) -> None:
    """What is read out of it comes faster."""
    firings = steps_behind(TWO, 8)

    def seconds(size: float) -> float:
        return mean_of(step_times(firings, TWO, rates(cache_bytes=size, weights=Reads(400.0, 100.0)))).seconds

    assert seconds(cache + more) <= seconds(cache) * (1 + 1e-9)


def test_arithmetic_counts_where_it_takes_longer_than_bytes() -> None:
    """2 x 200 operations, for each sequence: of eight, 32 s at 100 a second, and ten seconds of weights."""
    (step,) = step_times(steps_behind(ONE, 8), ONE, rates(), batch=8)
    assert (step.arithmetic, step.memory, step.bound) == (32, 8 * 9, "memory bandwidth")
    (step,) = step_times(steps_behind(ONE, 8), ONE, rates(flops=None), batch=8)
    assert step.arithmetic == 0


def test_the_mean_is_of_a_period_and_the_worst_fires_all() -> None:
    """One of four steps fires the coarse stage, which takes 50 s for its weights."""
    steps = step_times(steps_behind(TWO, 8), TWO, rates())
    assert worst_of(steps) == steps[0]
    assert mean_of(steps).seconds == pytest.approx(sum(step.seconds for step in steps) / 4)
    assert steps[0].seconds - steps[1].seconds == pytest.approx(50 + 3 + 4 - 1)  # a row less for the fine one


@pytest.mark.parametrize(
    ("choices", "bound"),
    [
        ({"weights": Reads.flat(1e9), "caches": Reads.flat(1e9), "layer_s": 90.0}, "launch overhead"),
        ({"weights": Reads.flat(1e9), "caches": Reads.flat(1e9), "layer_s": 0.0, "flops": None}, "host"),
    ],
)
def test_the_bound_is_what_takes_most(choices: dict[str, object], bound: str) -> None:
    """Each of them can be; of several rows arithmetic, too."""
    (step,) = step_times(steps_behind(ONE, 8), ONE, rates(**choices))
    assert step.bound == bound
    (step,) = step_times(steps_behind(ONE, 8), ONE, rates(**{**choices, "flops": 1.0}), batch=2)
    assert step.bound == "arithmetic"


POSITIVE = st.floats(1, 1e6)


@given(slow=POSITIVE, more=POSITIVE, position=st.integers(0, 60))
def test_more_bandwidth_is_never_slower(slow: float, more: float, position: int) -> None:
    """Of weights and of caches."""
    firings = steps_behind(TWO, position)

    def seconds(per_s: float) -> float:
        return mean_of(step_times(firings, TWO, rates(weights=Reads.flat(per_s), caches=Reads.flat(per_s)))).seconds

    assert seconds(slow + more) <= seconds(slow)


@given(position=st.integers(0, 60), more=st.integers(1, 60))
def test_a_longer_context_is_never_faster(position: int, more: int) -> None:
    """There is more to look back at."""
    before, behind = (mean_of(step_times(steps_behind(TWO, at), TWO, rates())).seconds for at in (position, position + more))
    assert behind >= before


@given(batch=st.integers(1, 60), more=st.integers(1, 60))
def test_more_sequences_take_longer_and_give_more(batch: int, more: int) -> None:
    """They share the weights."""
    few, many = (
        mean_of(step_times(steps_behind(ONE, 8), ONE, rates(), batch=count)).seconds for count in (batch, batch + more)
    )
    assert many >= few
    assert (batch + more) / many >= batch / few
