"""A second thread for the stages that a decode step does not wait for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Beside:
    """Runs jobs one after the other, beside the caller. An engine's call lets go of Python's lock, so both do run."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "foveal-late-stages")
        self._jobs: list[Future[None]] = []

    def start(self, job: Callable[[], None]) -> None:
        """Queue a job."""
        self._jobs.append(self._thread.submit(job))

    def join(self) -> None:
        """Wait for all jobs; raises what the first that failed raised, when all are done."""
        jobs, self._jobs = self._jobs, []
        errors = [error for job in jobs if (error := job.exception()) is not None]
        if errors:
            raise errors[0]

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown()
