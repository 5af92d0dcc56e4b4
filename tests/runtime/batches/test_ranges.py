"""Slots that fire, as runs of slots."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import stage, top_down

from foveal.contract import BorrowSpec, CacheSpec
from foveal.runtime.batches.ranges import WIDEST_GAP, may_overfire, ranges_of


def flags(text: str) -> np.ndarray:
    """`x` is true."""
    return np.array([letter == "x" for letter in text])


@pytest.mark.parametrize(
    ("fires", "passable", "expected"),
    [
        ("....", "xxxx", []),
        ("xxxx", "....", [(0, 4)]),
        (".xx.", "xxxx", [(1, 3)]),
        ("x..x", "xxxx", [(0, 4)]),  # running along costs less than another call
        ("x..x", "x.xx", [(0, 1), (3, 4)]),
        ("x...x.x", "xxxxx.x", [(0, 5), (6, 7)]),
        ("x....x", "xxxxxx", [(0, 1), (5, 6)]),  # too far
    ],
)
def test_runs_reach_over_narrow_gaps_that_may_be_fired(fires: str, passable: str, expected: list[tuple[int, int]]) -> None:
    """And no further."""
    assert ranges_of(flags(fires), flags(passable)) == expected


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=20))
def test_all_that_fire_and_none_that_must_not(slots: list[tuple[bool, bool]]) -> None:
    """Runs are in order and apart; between two of a run no gap is wider than it may be."""
    fires, passable = np.array(slots).T
    found = ranges_of(fires, passable)
    ran = np.zeros(len(slots), bool)
    for first, last in found:
        assert not ran[first:].any()
        assert (fires[first], fires[last - 1]) == (True, True)
        ran[first:last] = True
        assert np.diff(np.flatnonzero(fires[first:last])).max(initial=1) <= WIDEST_GAP + 1
    assert (ran >= fires).all()
    assert (ran <= fires | passable).all()


def test_what_may_not_be_fired_early() -> None:
    """Stages that write over rows which are still read, or that read such."""
    coarse, fine = top_down(4)
    ring = CacheSpec(name="ring", heads=1, width=4, keeps=8)
    assert may_overfire(coarse)
    assert may_overfire(fine)
    assert not may_overfire(stage("paged", 1, [], page=8))
    assert not may_overfire(stage("ring", 1, [], caches=(ring,)))
    assert not may_overfire(stage("reads", 1, [], borrows=(BorrowSpec(stage="ring", cache=ring),)))
