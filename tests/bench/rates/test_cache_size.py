"""A cache's size and speed from times of sets, by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.bench.rates.cache_size import out_of_memory, split

SIZES = [4.0, 20.0, 30.0, 44.0, 64.0, 160.0]


def seconds_of(size: float, cache: float, fast: float, slow: float) -> float:
    """What a byte takes of a set of which the cache holds its own size."""
    share = min(cache / size, 1.0)
    return share * fast + (1 - share) * slow


@given(cache=st.floats(12, 40), fast=st.floats(1, 3), slow=st.floats(8, 40))
def test_what_was_put_in_is_found(cache: float, fast: float, slow: float) -> None:
    """Of any cache that some sets are larger than, and one is smaller."""
    found = split(SIZES, [seconds_of(size, cache, fast, slow) for size in SIZES])
    assert found.cached == pytest.approx(fast)
    assert found.cache_bytes == pytest.approx(cache, rel=0.03)
    assert found.memory == pytest.approx(slow, rel=0.03)


def test_where_no_cache_shows_there_is_none() -> None:
    """All sets alike."""
    assert split(SIZES, [5.0] * 6) == (5.0, 5.0, 0.0)


def test_a_largest_set_that_fits_tells_little_of_memory() -> None:
    """At most four fifths of it count as cached; it is never quicker than the cache."""
    assert out_of_memory(10, 2.0, 2.0, 100) == 2.0
    assert out_of_memory(10, 4.0, 2.0, 100) == pytest.approx((4 - 0.8 * 2) / 0.2)
