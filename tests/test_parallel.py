"""Calls that run together."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from foveal import parallel
from foveal.parallel import together


@pytest.fixture(params=[1, 2, 8])
def cpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """As many as there might be."""
    monkeypatch.setattr(parallel, "usable_cpus", lambda: request.param)
    return int(request.param)


def test_results_are_in_the_order_of_the_calls(cpus: int) -> None:
    """Whichever begins first."""
    assert together([partial(int, digit) for digit in "3141"], [1, 4, 2, 3]) == [3, 1, 4, 1]
    assert together([], []) == []


def test_the_costliest_begin_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nobody waits for it alone at the end; equal ones begin in their order."""
    monkeypatch.setattr(parallel, "usable_cpus", lambda: 1)
    begun: list[str] = []
    together([partial(begun.append, name) for name in "abcd"], [1, 5, 2, 5])
    assert begun == ["b", "d", "c", "a"]


def test_they_run_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits until the other is there."""
    monkeypatch.setattr(parallel, "usable_cpus", lambda: 2)
    met = threading.Barrier(2, timeout=10)
    assert sorted(together([met.wait, met.wait], [1, 1])) == [0, 1]


def test_the_first_error_is_raised_when_all_have_ended(cpus: int) -> None:
    """The first in order, though it begins last."""
    done: list[str] = []
    calls = [partial(done.append, "a"), partial(int, "x"), partial(done.append, "b"), partial(int, "y")]
    with pytest.raises(ValueError, match="'x'"):
        together(calls, [1, 1, 1, 9])
    assert sorted(done) == ["a", "b"]
