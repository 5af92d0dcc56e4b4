"""How many threads decode fastest: measured, because a decode step is bound by memory and more threads may be slower."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator

import numpy as np

from .session import Session

_log = logging.getLogger(__name__)
_STEPS = 24
_WARM_UP = 8


def fastest_thread_count(open_session: Callable[[int], Session]) -> int:
    """The number of threads, among powers of two up to the CPUs this process may use, with the quickest median decode step.

    Stops at the first number that is slower than the one before it.
    """
    best, best_seconds = 1, float("inf")
    for threads in _candidates():
        seconds = _decode_seconds(open_session(threads))
        _log.info("decode step with %d threads: %.3f ms", threads, seconds * 1e3)
        if seconds >= best_seconds:
            break
        best, best_seconds = threads, seconds
    return best


def _candidates() -> Iterator[int]:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = 1
    while threads < available:
        yield threads
        threads *= 2
    yield available


def _decode_seconds(session: Session) -> float:
    """Mean seconds of a step over whole periods of firing; the quieter half of several rounds counts."""
    token, rounds = np.zeros((session.batch, 1), np.int64), []
    steps = min(_STEPS, session.capacity)
    with session:
        for _ in range(min(_WARM_UP, steps)):
            session.advance(token, last_only=True)
        for _ in range(3):
            session.reset()
            began = time.perf_counter()
            for _ in range(steps):
                session.advance(token, last_only=True)
            rounds.append((time.perf_counter() - began) / steps)
    return min(rounds)
