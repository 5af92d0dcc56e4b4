"""The thread that steps a batch: it takes requests, hands out what is drawn, and stores what is kept."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ...errors import FovealError, ServiceClosedError
from ..batches.batch import Batch
from ..batches.choice import Choice, Drawn
from ..batches.continuations import Continuations
from ..snapshots import Snapshot
from ..speculation.drafting import Speculation
from .event import Event
from .job import Job
from .observer import QuietObserver, ServiceObserver
from .stored_sessions import StoredSessions
from .stream import AsyncStream, deliver

_log = logging.getLogger("foveal.service")


class Worker:
    """Steps a batch in a thread of its own, as long as there is anything to do.

    Whatever happens, each text of a request that was taken is told its end, once.

    Args:
        open_batch: opens the batch, and another one if that breaks.
        sessions: keeps the state that requests end with.
        observer: is told what happens.
    """

    def __init__(
        self,
        open_batch: Callable[[], Batch],
        sessions: StoredSessions,
        observer: ServiceObserver,
    ) -> None:
        self.going = Continuations(open_batch(), BaseException)
        self.texts, self.tokens, self.steps, self.seconds_per_text = 0, 0, 0, 1.0
        self._open, self._sessions = open_batch, sessions
        self._observer = QuietObserver(observer)
        self._wake, self._jobs = threading.Condition(), set[Job]()
        self._inbox, self._cancelled = list[Job](), list[Job]()
        self._is_ending = self._is_over = False
        self._fires_before = dict[str, int]()
        self._speculation_before = Speculation()
        self._changing_batch, self._has_batch = threading.Lock(), True
        self._process = os.getpid()
        self._saver = ThreadPoolExecutor(1, "foveal-store")
        self._thread = threading.Thread(target=self._run, name="foveal-service", daemon=True)
        self._thread.start()
        atexit.register(self.end, 0.0)  # or the process may end in an engine's call, which libraries in C++ abort at

    # Called from any thread.

    @property
    def is_alive(self) -> bool:
        """Whether it steps."""
        return self._thread.is_alive() and not self._is_over

    @property
    def is_of_another_process(self) -> bool:
        """Whether this process was forked from the one whose thread steps, which is not here."""
        return os.getpid() != self._process

    def enter(self, job: Job, most: int) -> bool:
        """Take a request, if there are no more than `most` texts with it; whether it was taken.

        Raises:
            ServiceClosedError: it takes none any more.
        """
        with self._wake:
            if self._is_over:
                raise ServiceClosedError("the service has ended and takes no requests; ask another one")
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
            if job in self._jobs:
                self._cancelled.append(job)
                self._wake.notify_all()

    def end(self, drain_seconds: float) -> None:
        """Wait until all is done, but no longer than this; end the rest with what it has, and stop."""
        if self.is_of_another_process:  # where a lock may be held by a thread that is not there
            return
        with self._wake:
            self._wake.wait_for(lambda: not self._jobs or self._is_over, min(drain_seconds, threading.TIMEOUT_MAX))
            self._is_ending = True
            self._wake.notify_all()
        self._thread.join()
        self._saver.shutdown()
        atexit.unregister(self.end)

    @property
    def waiting(self) -> int:
        """Prompts and texts that have no slot."""
        return self.going.waiting + len(self._inbox)

    @property
    def fires(self) -> dict[str, int]:
        """Firings of every stage so far."""
        with self._changing_batch:
            now = self.going.batch.fires if self._has_batch else {}
            return {name: self._fires_before.get(name, 0) + now.get(name, 0) for name in {**self._fires_before, **now}}

    @property
    def speculation(self) -> Speculation:
        """What drafts came to so far."""
        with self._changing_batch:
            return self._speculation_before + self.going.speculation if self._has_batch else self._speculation_before

    # In its own thread.

    def _run(self) -> None:
        try:
            while self._take_calls():
                self._advance()
        except Exception:
            _log.critical("the service failed, and takes no more requests", exc_info=True)
        finally:
            self._stop()

    def _take_calls(self) -> bool:
        """Wait until there is something to do, and do what others asked for; False: nothing will come."""
        with self._wake:
            self._wake.wait_for(lambda: self._inbox or self._cancelled or not self.going.is_idle or self._is_ending)
            jobs, self._inbox = self._inbox, []
            cancelled, self._cancelled = self._cancelled, []
            ending = list(self._jobs) if self._is_ending else []
            is_ending = self._is_ending
        for job in jobs:
            self.going.add(job.give_prompt())
        for job in cancelled:
            job.spoil()
            self._hand_out(self.going.end(job.choices))
        for job in ending:
            self._hand_out(self.going.end(job.choices, keep=True))
        return not (is_ending and self.going.is_idle)

    def _advance(self) -> None:
        """A step of the batch; if it breaks, all that it held has failed, and another one begins."""
        began = time.perf_counter()
        try:
            drawn = self.going.step()
        except Exception as error:
            _log.exception("a step broke: its requests are given up, and a new batch begins")
            self._give_up(FovealError(f"the engines failed: {type(error).__name__}: {error}"))
            self._close_batch()
            going = Continuations(self._open(), BaseException)
            with self._changing_batch:
                self.going, self._has_batch = going, True
            return
        self.steps += 1
        self._observer.stepped(time.perf_counter() - began, len({one.choice for one in drawn if one.token is not None}))
        self._hand_out(drawn)
        for failed in (one.error for one in drawn if one.choice is None):
            _log.warning("a step failed for all its requests: %s", failed)
        if self.going.failure is not None:
            self._give_up(self.going.failure)

    def _give_up(self, error: FovealError) -> None:
        """End all that the batch holds with an error."""
        with self._wake:
            jobs = self._jobs.difference(self._inbox)
        for job in jobs:
            self._hand_out(self.going.fail(job.choices, error))

    def _close_batch(self) -> None:
        """And keep what it counted."""
        with self._changing_batch:
            for name, count in self.going.batch.fires.items():
                self._fires_before[name] = self._fires_before.get(name, 0) + count
            self._speculation_before += self.going.speculation
            self._has_batch = False
        try:
            self.going.close()
        except Exception:  # of a library that is broken, say
            _log.exception("the batch did not close")

    def _stop(self) -> None:
        """Whatever came when it was late is told so."""
        with self._wake:
            self._is_over, self._inbox = True, []
        self._give_up(ServiceClosedError("the service stopped; ask another one"))
        if self._has_batch:
            self._close_batch()
        with self._wake:
            self._wake.notify_all()

    def _hand_out(self, drawn: Iterable[Drawn]) -> None:
        now = time.monotonic()
        told: list[tuple[Job, Event]] = []
        kept: list[tuple[Job, Event, Snapshot]] = []
        for one in drawn:
            if one.choice is None:
                continue
            job: Job = one.choice.owner
            event = self._event(job, one, one.choice, now)
            if one.is_last:
                job.note_last(one, one.choice)
            if one.is_last and not job.live and job.state is not None:
                kept.append((job, event, job.state))
            else:
                told.append((job, event))
        self._tell(told)
        for job, event, state in kept:
            try:
                self._saver.submit(self._keep, job, event, state)
            except RuntimeError:  # the process is ending
                self._keep(job, event, state)

    def _event(self, job: Job, drawn: Drawn, choice: Choice, now: float) -> Event:
        _, text, token, logprobs, position, fired, finish_reason, error = drawn
        seconds = now - job.last_told.get(choice.index, job.begun)
        if choice.scorer is not None and not job.last_told:
            job.stream.prompt_logprobs = choice.scorer.found
        if drawn.is_last and choice.continuation.speculation is not None:
            job.stream.speculation[choice.index] = choice.continuation.speculation
        if token is not None:
            self._count_token(choice.index in job.last_told, fired, seconds)
            job.last_told[choice.index] = now
        return Event(choice.index, text, token, logprobs, position, fired, seconds, finish_reason, error)

    def _count_token(self, is_later: bool, fired: tuple[str, ...], seconds: float) -> None:
        self.tokens += 1
        if is_later:
            self._observer.token(fired, seconds)
        else:
            self._observer.first_token(seconds)

    def _keep(self, job: Job, event: Event, state: Snapshot) -> None:
        """In a thread of its own: store what is kept, and tell the end then, so that what follows it finds it."""
        try:
            job.stream.session_position = self._sessions.keep(job.stream.session, state)
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
        tokens = len(job.choices[event.index].continuation.ids)
        self._observer.finished(event.finish_reason, seconds, job.stream.prompt_tokens, tokens)
        with self._wake:
            self.seconds_per_text += 0.1 * (seconds - self.seconds_per_text)
            self.texts -= 1
            job.untold -= 1
            if job.untold:
                return
            self._jobs.discard(job)
            job.close()
            if job.stream.session is not None:
                self._sessions.end(job.stream.session)
            self._wake.notify_all()
