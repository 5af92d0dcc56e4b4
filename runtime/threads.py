"""How many threads decode fastest: measured, because a decode step is bound by memory and more threads may be slower."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

import numpy as np

from ..parallel import usable_cpus
from .expected import expected_period, expected_schedule
from .session import Session

_log = logging.getLogger(__name__)
_STEPS = 4
_FEWEST_ROUNDS, _MOST_ROUNDS = 4, 25  # the first warms up
_ENOUGH_SECONDS = 1.0
_CLEAR = 0.9
"""Where one is so much quicker than another, and in every round, further rounds would only delay the first token."""


def fastest_thread_count(open_session: Callable[[int], Session]) -> int:
    """The number of threads, among powers of two up to the CPUs this process may use, with the quickest decode step.

    Each number races the one before it, and the first that loses ends the search.
    """
    counts = thread_counts()
    best = next(counts)
    champion = open_session(best)
    for threads in counts:
        rival = open_session(threads)
        seconds = _race(champion, rival)
        _log.info("decode step with %d threads: %.3f ms, with %d: %.3f ms", best, seconds[0] * 1e3, threads, seconds[1] * 1e3)
        if seconds[1] >= seconds[0]:
            break
        best, champion = threads, rival
    return best


def overlap_helps(open_session: Callable[[bool], Session]) -> bool:
    """Whether decode steps are quicker where stages that nobody waits for run in a second thread: raced."""
    seconds = _race(open_session(False), open_session(True))
    _log.info("decode step in turn: %.3f ms, late stages beside: %.3f ms", seconds[0] * 1e3, seconds[1] * 1e3)
    return seconds[1] < seconds[0]


def thread_counts() -> Iterator[int]:
    """Powers of two up to the CPUs that this process may use, and these."""
    available, threads = usable_cpus(), 1
    while threads < available:
        yield threads
        threads *= 2
    yield available


def _race(*sessions: Session) -> list[float]:
    """Seconds of each session's decode step: the best of several rounds that take turns, so noise meets both.

    A round is a few steps; there are more of them the closer the race is.
    """
    rounds: list[list[float]] = []
    began = time.perf_counter()
    while len(rounds) < _FEWEST_ROUNDS or not (_is_clear(rounds[1:]) or _is_long(len(rounds), began)):
        rounds.append([_decode_seconds(session) for session in sessions])
    return _best(rounds[1:])


def _best(rounds: list[list[float]]) -> list[float]:
    return [min(seconds) for seconds in zip(*rounds, strict=True)]


def _is_clear(rounds: list[list[float]]) -> bool:
    best = _best(rounds)
    quickest = best.index(min(best))
    wins_each = all(seconds.index(min(seconds)) == quickest for seconds in rounds)
    return wins_each and best[quickest] < _CLEAR * min(other for index, other in enumerate(best) if index != quickest)


def _is_long(rounds: int, began: float) -> bool:
    return rounds >= _MOST_ROUNDS or time.perf_counter() - began > _ENOUGH_SECONDS


def _decode_seconds(session: Session) -> float:
    """Mean seconds of a step over whole periods of firing; where the data decides, stages fire as often as is expected."""
    steps = min(expected_period(session.specs, _STEPS), session.capacity)
    token = np.zeros((session.batch, 1), np.int64)
    if schedule := expected_schedule(session.specs, steps):
        session.follow(schedule)
    session.reset()
    began = time.perf_counter()
    for _ in range(steps):
        session.advance(token, last_only=True)
    return (time.perf_counter() - began) / steps
