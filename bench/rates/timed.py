"""A call that is timed again and again, beside others."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter_ns

_LEAST_NS = 15_000_000
_LEAST_CALLS = 3


class Timed:
    """Seconds of a call: the median of samples, each of which is the median of calls one behind the other."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call, self._samples = call, list[float]()

    def sample(self) -> None:
        """Call it for some milliseconds, after once that does not count: what ran before left the caches full of its own."""
        self._call()
        taken: list[int] = []
        while sum(taken) < _LEAST_NS or len(taken) < _LEAST_CALLS:
            began = perf_counter_ns()
            self._call()
            taken.append(perf_counter_ns() - began)
        self._samples.append(median(taken) / 1e9)

    @property
    def seconds(self) -> float:
        """Of the samples so far, at least one."""
        return median(self._samples)
