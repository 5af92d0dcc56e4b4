"""The thread that steps a batch: it takes requests, hands out what is drawn, and stores what is kept."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ...contract import StageSpec
from ...errors import FovealError, ServiceClosedError
from ..batches.batch import Batch
from ..batches.continuations import Choice, Continuations, Drawn
from ..snapshots import Snapshot
from .event import Event
from .fired import FiredStages
from .job import Job
from .observer import ServiceObserver
from .stored_sessions import StoredSessions
from .stream import AsyncStream, deliver

_log = logging.getLogger("foveal.service")
_MOST_FAILURES = 3
"""Steps in a row that may fail for all before their requests are given up."""


class Worker:
    """Steps a batch in a thread of its own, as long as there is anything to do.

    Args:
        open_batch: opens the batch, and another one if that breaks.
        specs: of the stages.
        sessions: keeps the state that requests end with.
        observer: is told what happens.
    """

    def __init__(
        self,
        open_batch: Callable[[], Batch],
        specs: Sequence[StageSpec],
        sessions: StoredSessions,
        observer: ServiceObserver,
    ) -> None:
        self.going = Continuations(open_batch())
        self.texts, self.tokens, self.steps, self.seconds_per_text = 0, 0, 0, 1.0
        self._open, self._sessions, self._observer, self._fired = open_batch, sessions, observer, FiredStages(specs)
        self._wake, self._jobs = threading.Condition(), set[Job]()
        self._inbox, self._cancelled = list[Job](), list[Job]()
        self._is_ending, self._failures, self._fires_before = False, 0, dict[str, int]()
        self._saver = ThreadPoolExecutor(1, "foveal-store")
        self._thread = threading.Thread(target=self._run, name="foveal-service", daemon=True)
        self._thread.start()

    # Called from any thread.

    @property
    def is_alive(self) -> bool:
        """Whether it steps."""
        return self._thread.is_alive()

    def enter(self, job: Job, most: int) -> bool:
        """Take a request, if there are no more than `most` texts with it; whether it was taken."""
        with self._wake:
            if self.texts + job.stream.n > most:
                return False
            self.texts += job.stream.n
            self._jobs.add(job)
            self._inbox.append(job)
            self._wake.notify_all()
            return True

    def cancel(self, job: Job) -> None:
        """End a request before the next step."""
        with self._wake:
            self._cancelled.append(job)
            self._wake.notify_all()

    def end(self, drain_seconds: float) -> None:
        """Wait until all is done, but no longer than this; end the rest with what it has, and stop."""
        with self._wake:
            self._wake.wait_for(lambda: not self._jobs or not self.is_alive, drain_seconds)
            self._is_ending = True
            self._wake.notify_all()
        self._thread.join()
        self._saver.shutdown()

    @property
    def waiting(self) -> int:
        """Prompts and texts that have no slot."""
        return self.going.waiting + len(self._inbox)

    @property
    def fires(self) -> dict[str, int]:
        """Firings of every stage so far."""
        now = self.going.batch.fires if self.is_alive else {}
        return {name: self._fires_before.get(name, 0) + now.get(name, 0) for name in {**self._fires_before, **now}}

    # In its own thread.

    def _run(self) -> None:
        try:
            while self._take_calls():
                began = time.perf_counter()
                drawn = self._step()
                self.steps += 1
                self._observer.stepped(time.perf_counter() - began, len(drawn))
                self._hand_out(drawn)
        finally:
            self._fires_before = self.fires
            self._give_up(ServiceClosedError("the service stopped; ask another one"))
            self.going.close()

    def _take_calls(self) -> bool:
        """Wait until there is something to do, and do what others asked for; False: nothing will come."""
        with self._wake:
            self._wake.wait_for(lambda: self._inbox or self._cancelled or not self.going.is_idle or self._is_ending)
            jobs, self._inbox = self._inbox, []
            cancelled, self._cancelled = self._cancelled, []
            is_ending = self._is_ending
        for job in jobs:
            job.choices = self.going.add(job.request, job, job.stream.n, job.snapshot, job.keeps_state)
            job.snapshot = None
        for job in cancelled:
            self._hand_out(self.going.end(job.choices))
        if is_ending:
            for job in list(self._jobs):
                self._hand_out(self.going.end(job.choices, keep=True))
        return not (is_ending and self.going.is_idle)

    def _step(self) -> list[Drawn]:
        """Of the batch; if it breaks, all that it held has failed, and another one begins."""
        try:
            drawn = self.going.step()
        except Exception as error:
            _log.exception("a step broke: its requests are given up, and a new batch begins")
            self._give_up(FovealError(f"the engines failed: {type(error).__name__}: {error}"))
            self._fires_before = self.fires
            self.going.close()
            self.going = Continuations(self._open())
            return []
        failure = next((one.error for one in drawn if one.choice is None), None)
        self._failures = 0 if failure is None else self._failures + 1
        if failure is not None:
            _log.warning("a step failed for all its requests: %s", failure)
        if failure is not None and self._failures >= _MOST_FAILURES:
            self._failures = 0
            self._give_up(failure)
        return drawn

    def _give_up(self, error: FovealError) -> None:
        """End all that is there with an error."""
        for job in list(self._jobs):
            self.going.end(job.choices)
            self._tell([(job, _failed(index, error)) for index in sorted(job.live)])

    def _hand_out(self, drawn: Sequence[Drawn]) -> None:
        now = time.monotonic()
        told = []
        for one in drawn:
            if one.choice is None or one.choice.index not in one.choice.owner.live:
                continue
            job, event = one.choice.owner, self._event(one, one.choice, now)
            if one.choice.snapshot is None:
                told.append((job, event))
            else:
                job.live.discard(event.index)
                self._saver.submit(self._keep, job, event, one.choice.snapshot)
        self._tell(told)

    def _event(self, drawn: Drawn, choice: Choice, now: float) -> Event:
        job: Job = choice.owner
        seconds, fired = now - job.last_told.get(choice.index, job.begun), tuple[str, ...]()
        if drawn.token is not None:
            fired = self._fired.at(drawn.position - 1)
            self._count_token(job, choice, fired, seconds)
            job.last_told[choice.index] = now
        return Event(
            choice.index,
            drawn.text,
            drawn.token,
            drawn.logprobs,
            drawn.position,
            fired,
            seconds,
            drawn.finish_reason,
            drawn.error,
        )

    def _count_token(self, job: Job, choice: Choice, fired: tuple[str, ...], seconds: float) -> None:
        self.tokens += 1
        if choice.index in job.last_told:
            self._observer.token(fired, seconds)
            return
        self._observer.first_token(seconds)
        if choice.scorer is not None:
            job.stream.prompt_logprobs = choice.scorer.found

    def _keep(self, job: Job, event: Event, snapshot: Snapshot) -> None:
        """In a thread of its own: store what is kept, and tell the end then, so that what follows it finds it."""
        try:
            self._sessions.keep(job.stream.session, snapshot)
            job.stream.session_position = None if job.stream.session is None else snapshot.position
        except Exception as error:  # its text is whole all the same
            _log.warning("the state of a request could not be kept: %s", error)
        self._tell([(job, event)])

    def _tell(self, told: Sequence[tuple[Job, Event]]) -> None:
        """Hand events over: those of an event loop together, as waking it costs more than handing over."""
        by_loop: defaultdict[Any, list[Any]] = defaultdict(list)
        for job, event in told:
            if event.is_last:
                self._count_end(job, event)
            by_loop[job.stream.loop if isinstance(job.stream, AsyncStream) else None].append((job.stream, event))
        for loop, items in by_loop.items():
            if loop is None:
                deliver(items)
                continue
            try:
                loop.call_soon_threadsafe(deliver, items)
            except RuntimeError:  # the loop was closed: nobody reads them
                for stream, _ in items:
                    stream.cancel()

    def _count_end(self, job: Job, event: Event) -> None:
        seconds = time.monotonic() - job.begun
        tokens = len(job.choices[event.index].continuation.ids) if job.choices else 0
        self._observer.finished(event.finish_reason, seconds, job.stream.prompt_tokens, tokens)
        with self._wake:
            self.seconds_per_text += 0.1 * (seconds - self.seconds_per_text)
            self.texts -= 1
            job.live.discard(event.index)
            job.untold -= 1
            if job.untold:
                return
            self._jobs.discard(job)
            if job.stream.session is not None:
                self._sessions.end(job.stream.session)
            self._wake.notify_all()


def _failed(index: int, error: FovealError) -> Event:
    return Event(index, "", None, None, -1, (), 0.0, None, error)
