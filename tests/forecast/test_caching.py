"""What is in a cache when a stage fires, counted by hand."""

from __future__ import annotations

import pytest
from forecasting import shape, stage
from hypothesis import given
from hypothesis import strategies as st

from foveal.contract import CacheSpec, ClockSpec
from foveal.forecast.caching import shares_in_cache, steps_behind

TWO = shape(stage("1", caches=()), stage("4", 4, 5000, caches=()))


def test_firings_of_a_period() -> None:
    """Token 8 fires both stages; the fine one looks back at 9 to 12 rows of 10 bytes, the coarse one at its third."""
    steps = steps_behind(shape(stage("1"), stage("4", 4, 5000)), 8)
    assert [[(fired.stage.spec.name, fired.cached) for fired in step] for step in steps] == [
        [("1", 90), ("4", 30)],
        [("1", 100)],
        [("1", 110)],
        [("1", 120)],
    ]


def test_caches_that_grow_alike_count_as_one() -> None:
    """Keys and values are read together."""
    caches = tuple(CacheSpec(name=f"0.{part}", heads=2, width=8) for part in ("key", "value"))
    ((fired,),) = steps_behind(shape(stage("1", caches=caches)), 8)
    assert fired.cached == 2 * 90


def test_a_cache_that_keeps_so_many_rows() -> None:
    """It is read whole, and no more, however long the text."""
    ring = CacheSpec(name="0.key", heads=2, width=8, keeps=4)
    ((fired,),) = steps_behind(shape(stage("1", caches=(ring,))), 50)
    assert fired.cached == 40


def test_where_the_data_decides_stages_fire_at_regular_distances() -> None:
    """Once in four tokens is expected."""
    clock = ClockSpec(stage="1", tokens_per_firing=4.0)
    steps = steps_behind(shape(stage("1"), stage("decided", clock=clock)), 8)
    assert sum(len(step) for step in steps) == len(steps) + len(steps) / 4


def test_what_fits_is_there_and_without_a_cache_nothing_is() -> None:
    """6,000 bytes in all."""
    steps = steps_behind(TWO, 8)
    assert shares_in_cache(steps, 6000) == {"1": 1.0, "4": 1.0}
    assert shares_in_cache(steps, 0) == pytest.approx({"1": 0, "4": 0}, abs=1e-9)


def test_of_one_stage_as_much_is_there_as_the_cache_holds() -> None:
    """Of 1,000 bytes that are read over and over 400."""
    steps = steps_behind(shape(stage("1", caches=())), 8)
    assert shares_in_cache(steps, 400)["1"] == pytest.approx(0.4)


def test_what_is_read_four_times_as_often_is_there_more_often() -> None:
    """By hand, with t = 1/2: 4 t / (1 + 4 t) = 2/3 of 1,000 bytes, and 1/3 of 5,000."""
    shares = shares_in_cache(steps_behind(TWO, 8), 1000 * 2 / 3 + 5000 / 3)
    assert shares == pytest.approx({"1": 2 / 3, "4": 1 / 3})


def test_sequences_of_a_batch_take_room_with_their_caches() -> None:
    """Nine rows of ten sequences are 900 bytes, beside weights of 1,000."""
    steps = steps_behind(shape(stage("1")), 8)
    assert shares_in_cache(steps, 1090)["1"] == 1
    assert shares_in_cache(steps, 950, batch=10)["1"] == pytest.approx(950 / 1900)


@given(cache=st.floats(1, 5999))
def test_all_that_is_there_is_as_large_as_the_cache(cache: float) -> None:
    """However large that is, and no share is more than all."""
    shares = shares_in_cache(steps_behind(TWO, 8), cache)
    assert 1000 * shares["1"] + 5000 * shares["4"] == pytest.approx(cache, rel=1e-6)
    assert 0 <= shares["4"] <= shares["1"] <= 1
