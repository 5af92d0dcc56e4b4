"""Requests of one sequence, one after the other; those of others beside them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

Job = Callable[[], None]


class Lines:
    """A line for each sequence that has a request: the next begins when the one before it is over.

    Args:
        workers: requests that run at once.
    """

    def __init__(self, workers: int) -> None:
        self._pool = ThreadPoolExecutor(workers, "foveal-triton")
        self._turn = threading.Lock()
        self._waiting: dict[int, deque[Job]] = {}

    def add(self, sequence: int | None, job: Job) -> None:
        """Run a job in a thread, after those of its sequence; jobs must not raise."""
        if sequence is None:
            self._pool.submit(job)
            return
        with self._turn:
            line = self._waiting.get(sequence)
            if line is not None:
                line.append(job)
                return
            self._waiting[sequence] = deque()
        self._pool.submit(self._run, sequence, job)

    def _run(self, sequence: int, job: Job) -> None:
        following: Job | None = job
        while following is not None:
            following()
            with self._turn:
                line = self._waiting[sequence]
                following = line.popleft() if line else None
                if following is None:
                    del self._waiting[sequence]

    def close(self) -> None:
        """Wait until all that was added is over."""
        self._pool.shutdown()
