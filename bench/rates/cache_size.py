"""What times of sets that are read over and over say of a cache: how fast it is, how fast memory, and how large it is.

Of a set larger than a cache that replaces at random, the cache holds as much as its size; the time of a byte lies between that
of the cache's and that of memory's by this share (`forecast.caching`).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

_ROUNDS = 10
_CLEAR = 0.15, 0.9
"""Shares that tell the size: beyond them they are mostly noise."""
_MOST_CACHED = 0.8
"""Of a set: what is left must be read out of memory for long enough to be told from noise."""


class Split(NamedTuple):
    """Seconds of a byte out of the cache and out of memory, and the cache's bytes; 0: no cache shows."""

    cached: float
    memory: float
    cache_bytes: float


def split(sizes: Sequence[float], seconds: Sequence[float]) -> Split:
    """Of sets of so many bytes, growing, the seconds of a byte each.

    Memory's time and the cache's size follow from one another: the largest set is in the cache by a part.
    """
    cached, last = min(seconds), seconds[-1]
    memory, cache = last, 0.0
    for _ in range(_ROUNDS):
        shares = [(memory - each) / (memory - cached) if memory > cached else 0.0 for each in seconds]
        found = [size * share for size, share in zip(sizes, shares, strict=True) if _CLEAR[0] < share < _CLEAR[1]]
        cache = min(median(found), sizes[-1] / 2) if found else 0.0
        memory = out_of_memory(sizes[-1], last, cached, cache)
    return Split(cached, memory, cache) if cache else Split(last, last, 0.0)


def out_of_memory(size: float, seconds: float, cached: float, cache_bytes: float) -> float:
    """Seconds of a byte out of memory, of a set of which the cache holds a part; at least the cache's."""
    share = min(cache_bytes / size, _MOST_CACHED)
    return max((seconds - share * cached) / (1 - share), cached)
