"""An application's engine: requests of any number of threads and event loops, decoded together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy.typing as npt

from ...contract import StageSpec
from ...errors import CapacityError, ConfigError, InputError, QueueFullError, ServiceClosedError
from ..batches.batch import PREFILL_SECONDS, Batch
from ..batches.phases import Policy
from ..capacity import whole
from ..generation.request import Request
from ..given import seconds, shown
from ..snapshots import Snapshot
from ..store.session_store import SessionStore
from .job import Job
from .observer import OBSERVED, ServiceObserver
from .statistics import ServiceStatistics
from .stored_sessions import StoredSessions
from .stream import AsyncStream, Stream, ThreadStream
from .worker import Worker

if TYPE_CHECKING:
    from ...bundle import Bundle
    from ..model import Model

AnyStream = TypeVar("AnyStream", bound=Stream)


@runtime_checkable
class ServedModel(Protocol):
    """What a service needs of a model."""

    @property
    def specs(self) -> Sequence[StageSpec]:
        """Of its stages."""
        ...

    @property
    def identity(self) -> str:
        """By which its snapshots are told from those of others."""
        ...

    def batch(self, slots: int, capacity: int | None, policy: Policy, prefill_seconds: float) -> Batch:
        """A fresh one."""
        ...

    def request(self, prompt: str | npt.ArrayLike, settings: Mapping[str, Any], as_text: bool) -> Request:
        """What to continue, and how, checked."""
        ...


class Service:
    """Serves requests from one batch, stepped by a thread of its own: they come and go at any time.

        with foveal.Service(model, slots=16) as service:
            for event in service.submit("It was", max_new_tokens=32, seed=1):
                print(event.text, end="")

    A request that finds no slot waits; one that finds no place in the queue either is refused. Texts are those of
    `Model.generate` with the same settings and seed, up to how the engine's kernels round for several rows.

    Args:
        model: whose batch it is.
        slots: texts that decode at once.
        capacity: the most tokens of a sequence; None: as many as the engines hold of the model's context.
        queue: texts that may wait for a slot.
        policy: as of `Batch`.
        prefill_seconds: as of `Batch`.
        store: keeps sessions between requests; it stays the caller's to close.
        keeps_prefixes: whether what any request leaves is kept in the store, so that a prompt that begins in the same way is
            not read again; its logits are those of a prompt that was read in other chunks (`SessionStore`).
        observer: is told what happens.
        draft: as of `Model.generate`, for requests that say nothing of drafts.
        draft_tokens: likewise.

    Raises:
        ConfigError, CapacityError, EngineMismatchError: as `Model.batch`; ConfigError for a queue below 0, prefixes that are to
            be kept without a store, a store of another bundle or target, or what is no model, store or observer.
        InputError, ConfigError, BundleError: a draft that can't be, as `Model.generate`.
    """

    def __init__(
        self,
        model: ServedModel,
        slots: int = 16,
        capacity: int | None = None,
        queue: int = 64,
        policy: Policy = "staggered",
        prefill_seconds: float = PREFILL_SECONDS,
        store: SessionStore | None = None,
        keeps_prefixes: bool = False,
        observer: ServiceObserver | None = None,
        draft: str | Path | Bundle | Model | None = None,
        draft_tokens: int | None = None,
    ) -> None:
        self.queue = whole("queue", queue, ConfigError)
        if self.queue < 0:
            raise ConfigError(f"queue must be at least 0, got {queue}: texts that may wait for a slot")
        if keeps_prefixes and store is None:
            raise ConfigError("prefixes are kept in a store, and there is none; give one, or leave keeps_prefixes out")
        _check_parts(model, store, observer)
        self.model, self.slots = model, slots
        self._drafts = {"draft": draft, "draft_tokens": draft_tokens} if (draft, draft_tokens) != (None, None) else {}
        if self._drafts:
            model.request([0], self._drafts, as_text=False)  # a drafting model is loaded, or refused, before all else
        self.sessions = StoredSessions(store, keeps_prefixes)
        self._worker = Worker(
            lambda: model.batch(slots, capacity, policy, prefill_seconds),
            self.sessions,
            observer or ServiceObserver(),
        )
        self.capacity = self._worker.going.batch.capacity
        self._is_closing = False
        self._counting = threading.Lock()
        self._counts = dict.fromkeys(("requests", "refused", "prompt_tokens", "restored_tokens"), 0)

    def submit(
        self,
        prompt: str | npt.ArrayLike,
        *,
        n: int = 1,
        session: str | None = None,
        position: int | None = None,
        as_text: bool = True,
        **settings: Any,
    ) -> ThreadStream:
        """Continue a prompt; gives an iterator of `Event`.

        Args:
            prompt: text or ids `[T]`. With a session it comes after what that holds, and may be empty.
            n: texts after the same prompt, which is read once; text k has a seed that is larger by k, if there is one.
            session: name of a sequence that goes on where it stood, and is kept at the end of the request, with the first of
                `n` texts; a new one begins. If the request is cancelled or fails, the session stays where it stood.
            position: tokens that the session is expected to hold, 0 for a new one; None: any.
            as_text: whether text is made of the tokens. Without it, stop strings are refused, and no tokenizer is needed.
            settings: as of `Model.generate`; a `draft`, or None for none, goes before the service's own.

        Raises:
            InputError, ConfigError: as `Model.generate`; InputError for an n below 1, or more texts than slots and queue hold.
            CapacityError: the prompt, after what the session holds, is longer than the capacity.
            QueueFullError: there is no room now.
            ServiceClosedError: it is shutting down, or has failed.
            SessionBusyError: another request is at the session.
            SessionLostError: the session is not there, or not at that position.
            StorageError: the store can't be read.
        """
        return self._submit(ThreadStream, prompt, n, session, position, as_text, settings)

    def submit_to(
        self,
        loop: asyncio.AbstractEventLoop,
        prompt: str | npt.ArrayLike,
        *,
        n: int = 1,
        session: str | None = None,
        position: int | None = None,
        as_text: bool = True,
        **settings: Any,
    ) -> AsyncStream:
        """As `submit`, for a task of an event loop, whichever thread this is called from: `async for event in stream`.

        The call itself reads the store and splits text into tokens, so that a loop had better not wait for it:
        `stream = await asyncio.to_thread(service.submit_to, asyncio.get_running_loop(), prompt)`.
        """

        def open_stream(*arguments: Any) -> AsyncStream:
            return AsyncStream(loop, *arguments)

        return self._submit(open_stream, prompt, n, session, position, as_text, settings)

    def _submit(
        self,
        open_stream: Callable[..., AnyStream],
        prompt: str | npt.ArrayLike,
        n: int,
        session: str | None,
        position: int | None,
        as_text: bool,
        settings: Mapping[str, Any],
    ) -> AnyStream:
        n, position = self._checked(n, session, position)
        request = self.model.request(prompt, self._with_drafts(settings), as_text)
        stream = open_stream(n, len(request.ids), session)
        if session is None:
            self._enter(stream, *self._begun_anew(request))
            return stream
        snapshot = self.sessions.begin(session, position)
        try:
            self._enter(stream, *(self._begun_anew(request) if snapshot is None else (request, snapshot)))
        except BaseException:
            self.sessions.end(session)
            raise
        return stream

    def _with_drafts(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Settings of a request, and of the service those that it leaves out; the length of a draft has no use without one."""
        found = {**self._drafts, **settings}
        if found.get("draft") is None and "draft_tokens" not in settings:
            found.pop("draft_tokens", None)
        return found

    def _checked(self, n: int, session: str | None, position: int | None) -> tuple[int, int | None]:
        n, most = whole("n", n, InputError), self.slots + self.queue
        if not 1 <= n <= most:
            raise InputError(f"n is {shown(n)}, expected 1 to {most}, as many texts as slots and queue hold")
        if position is not None and session is None:
            raise InputError(f"got position {shown(position)} without a session, whose position it would be; name the session")
        if position is not None and (position := whole("position", position, InputError)) < 0:
            raise InputError(f"position is {shown(position)}, expected at least 0: tokens that the session holds")
        self._check_open()
        if self._worker.texts + n > most:  # before anything is read or split; entering looks again
            raise self._full()
        return n, position

    def _check_open(self) -> None:
        if self._worker.is_of_another_process:
            raise ServiceClosedError("the service is of the process that this one was forked from; open one in this process")
        if self._is_closing:
            raise ServiceClosedError("the service is shutting down and takes no requests; ask another one")
        if not self._worker.is_alive:
            raise ServiceClosedError("the service's engines failed; see its log, and start it again")

    def _full(self) -> QueueFullError:
        self._count(refused=1)
        seconds = self._worker.seconds_per_text * max(1, self._worker.waiting) / self.slots
        return QueueFullError(
            f"the service is full: it holds {self.slots} texts that decode and {self.queue} that wait; ask again later",
            retry_after=max(1.0, seconds),
        )

    def _begun_anew(self, request: Request) -> tuple[Request, Snapshot | None]:
        """After what the prompt has in common with what is kept, unless all its tokens are to be scored."""
        if request.params.prompt_logprobs is not None or (found := self.sessions.prefix(request.ids)) is None:
            return request, None
        return replace(request, ids=request.ids[found.position :]), found

    def _enter(self, stream: Stream, request: Request, snapshot: Snapshot | None) -> None:
        past, new = 0 if snapshot is None else snapshot.position, len(request.ids)
        if not past + new:
            raise InputError("the prompt is empty, expected at least one token; these models have no start token")
        if past + new > self.capacity:
            after = f" after {past} of its session" if past else ""
            raise CapacityError(
                f"the prompt has {new} tokens{after}, a sequence of this service room for {self.capacity}; shorten the prompt, "
                "or open the service with more capacity"
            )
        stream.restored_tokens = past
        job = Job(stream, request, snapshot, stream.session is not None or self.sessions.keeps_prefixes)
        stream.on_cancel = partial(self._worker.cancel, job)
        try:
            self._check_open()
            if not self._worker.enter(job, self.slots + self.queue):
                raise self._full()
        except BaseException:
            job.close()
            raise
        self._count(requests=1, prompt_tokens=stream.prompt_tokens, restored_tokens=past)

    def _count(self, **counts: int) -> None:
        with self._counting:
            for name, count in counts.items():
                self._counts[name] += count

    @property
    def is_alive(self) -> bool:
        """Whether its engines work."""
        return self._worker.is_alive

    @property
    def is_ready(self) -> bool:
        """Whether it takes requests."""
        return self.is_alive and not self._is_closing

    @property
    def statistics(self) -> ServiceStatistics:
        """As of now."""
        worker = self._worker
        return ServiceStatistics(
            slots=self.slots,
            capacity=self.capacity,
            running=worker.going.running,
            reading=worker.going.reading,
            waiting=worker.waiting,
            steps=worker.steps,
            tokens=worker.tokens,
            fires=worker.fires,
            draft_calls=worker.speculation.calls,
            drafted=worker.speculation.drafted,
            accepted=worker.speculation.accepted,
            **self._counts,
        )

    def close(self, drain_seconds: float = 0.0) -> None:
        """Take no more requests, let those that are there go on for so long, and end the rest with what they have.

        Texts that are ended so have the finish reason `cancelled`; their sessions are kept as they stand.

        Raises:
            ConfigError: no number of seconds, or one below 0; the service stays open.
        """
        drain_seconds = seconds("drain_seconds", drain_seconds)
        self._is_closing = True
        self._worker.end(drain_seconds)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _check_parts(model: object, store: object, observer: object) -> None:
    """Raise ConfigError for what is none, and for a store in which nothing of the model could be kept."""
    if not isinstance(model, ServedModel):
        raise ConfigError(f"a service takes a model that is loaded, got {shown(model)}; foveal.load gives one")
    if store is not None and not isinstance(store, SessionStore):
        raise ConfigError(f"the store must be a foveal.SessionStore, got {shown(store)}")
    if isinstance(store, SessionStore) and store.identity != model.identity:
        raise ConfigError("the store keeps sequences of another bundle or target; open it with the model that the service has")
    missing = [] if observer is None else [name for name in OBSERVED if not callable(getattr(observer, name, None))]
    if missing:
        raise ConfigError(f"the observer must be a ServiceObserver, got {shown(observer)}; derive a class from it")
