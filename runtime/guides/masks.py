"""Masks beside the engines: a few threads for all guides of the process."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Place(NamedTuple):
    """Where a text stands: tokens that may follow `[V]`, whether it may end here, and the seconds it took to find out."""

    mask: npt.NDArray[np.bool_]
    may_end: bool
    seconds: float


class Job:
    """One computation of a place, done by a thread of the pool, or by who needs it if no thread has begun."""

    def __init__(self, work: Callable[[], tuple[npt.NDArray[np.bool_], bool]]) -> None:
        self._work: Callable[[], tuple[npt.NDArray[np.bool_], bool]] | None = work
        self._turn = threading.Lock()
        self._place: Place | None = None
        self._error: Exception | None = None

    def start(self) -> None:
        """Have it done by the pool."""
        _threads().submit(self._run)

    def place(self) -> Place:
        """What it found; waits, or does it. Raises what it raised, every time."""
        if self._place is None:
            self._run()
        if self._error is not None:
            raise self._error
        assert self._place is not None
        return self._place

    @property
    def seconds(self) -> float:
        """It took; 0 before it is done."""
        return 0.0 if self._place is None else self._place.seconds

    def _run(self) -> None:
        with self._turn:
            work, self._work = self._work, None
            if work is None:
                return
            began = perf_counter()
            try:
                mask, may_end = work()
            except Exception as error:
                self._error = error
                return
            self._place = Place(mask, may_end, perf_counter() - began)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """llguidance lets go of Python's lock while it computes a mask, so these do run beside an engine's call."""
    return ThreadPoolExecutor(max(2, min(4, (os.cpu_count() or 1) // 2)), "foveal-masks")
