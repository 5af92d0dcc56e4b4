"""Which of all combinations run on every change, and which in the deep profile alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import settings

deep = pytest.mark.deep


def covering(*axes: Iterable[Any], together: int = 2) -> list[Any]:
    """All combinations of the axes' values, as parameters of a test; those that `make test` can do without are deep.

    Args:
        axes: the values of each parameter.
        together: every choice of values of so many axes occurs together in one that is not deep. 1: every value of each axis
            occurs; 2: every pair of values of two axes does, in which most faults of combinations show.
    """
    values = [list(axis) for axis in axes]
    everything = list(itertools.product(*values))
    kept = set(_cover([len(axis) for axis in values], min(together, len(values))))
    indices = itertools.product(*(range(len(axis)) for axis in values))
    return [
        pytest.param(*combination, marks=() if index in kept else deep)
        for index, combination in zip(indices, everything, strict=True)
    ]


def fewer_examples(times: int) -> settings:
    """Of a property each example of which is a long one: so many times fewer than of others, at least three."""
    return settings(max_examples=max(3, settings().max_examples // times))


def but_deep(kept: Sequence[Any], everything: Iterable[Any]) -> list[Any]:
    """Parameters by hand: `kept` run on every change, all others are deep. A tuple is several parameters."""
    params = [one if isinstance(one, tuple) else (one,) for one in everything]
    wanted = [one if isinstance(one, tuple) else (one,) for one in kept]
    assert all(one in params for one in wanted), f"{kept} are not all among the parameters"
    return [pytest.param(*one, marks=() if one in wanted else deep) for one in params]


def _cover(sizes: Sequence[int], together: int) -> list[tuple[int, ...]]:
    """Combinations of indices, greedily chosen: each time the first of those that cover most of what is not covered yet."""
    places = list(itertools.combinations(range(len(sizes)), together))

    def covers(combination: tuple[int, ...]) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
        return {(place, tuple(combination[axis] for axis in place)) for place in places}

    everything = list(itertools.product(*map(range, sizes)))
    missing, chosen = set().union(*map(covers, everything)), []
    while missing:
        best = max(everything, key=lambda combination: len(missing & covers(combination)))
        missing -= covers(best)
        chosen.append(best)
    return chosen
