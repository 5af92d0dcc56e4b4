"""What comes of a request, event by event, for a thread or for an event loop."""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from ...errors import InputError
from ..generation.continuation import FinishReason
from ..logprobs import TokenLogprobs
from ..speculation.drafting import Speculation
from .event import Event


def _nothing() -> None:
    """There is nothing to cancel."""


class Stream:
    """Of one request to a service.

    Attributes:
        n: texts that it asked for.
        prompt_tokens: how many ids it gave.
        restored_tokens: how many of its past were not computed, but found in the store.
        session: its key; None: it has none.
        finish_reasons: of its texts that have ended, by index.
        prompt_logprobs: of the prompt's tokens, if the settings ask for them; there with the first event.
        speculation: what drafts came to in its texts that have ended, by index; of texts that have none, nothing.
        session_position: tokens that the session holds, once the request is over; None: it has none, or could not be kept.
    """

    def __init__(self, n: int, prompt_tokens: int, session: str | None) -> None:
        self.n, self.prompt_tokens, self.session, self.restored_tokens = n, prompt_tokens, session, 0
        self.finish_reasons: dict[int, FinishReason] = {}
        self.prompt_logprobs: list[TokenLogprobs] = []
        self.speculation: dict[int, Speculation] = {}
        self.session_position: int | None = None
        self.on_cancel: Callable[[], None] = _nothing
        self._live = n

    def cancel(self) -> None:
        """Want no more: its slots are free before the next step. What was stored of its session stays as it was."""
        self.on_cancel()

    def close(self) -> None:
        """As `cancel`, for `contextlib.closing`."""
        self.cancel()

    @property
    def is_over(self) -> bool:
        """Whether all its events were read."""
        return not self._live

    def _note(self, event: Event) -> Event:
        """Count an event that is handed on; raises the error that it brings, after which nothing comes."""
        if event.is_last:
            self._live -= 1
        if event.finish_reason is not None:
            self.finish_reasons[event.index] = event.finish_reason
        if event.error is not None:
            if self._live:
                self.cancel()
            self._live = 0
        if not self._live:
            self.on_cancel = _nothing
        if event.error is not None:
            raise event.error
        return event

    def put(self, event: Event) -> None:
        """Hand over an event, from the service's thread."""
        raise NotImplementedError


class ThreadStream(Stream, Iterator[Event]):
    """For threads: `for event in stream`."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def put(self, event: Event) -> None:
        """Hand over an event, from the service's thread."""
        self._events.put(event)

    def __next__(self) -> Event:
        if self.is_over:
            raise StopIteration
        return self._note(self._events.get())


class AsyncStream(Stream, AsyncIterator[Event]):
    """For a task of an event loop: `async for event in stream`. `put` is called in the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.loop = loop
        self._events: deque[Event] = deque()
        self._has_events = asyncio.Event()

    def put(self, event: Event) -> None:
        """Hand over an event, in the loop's thread."""
        self._events.append(event)
        self._has_events.set()

    async def __anext__(self) -> Event:
        if self.is_over:
            raise StopAsyncIteration
        while not self._events:
            if asyncio.get_running_loop() is not self.loop:
                raise InputError("this stream was opened for another event loop, where its events come; submit_to this one")
            self._has_events.clear()
            await self._has_events.wait()
        return self._note(self._events.popleft())

    async def aclose(self) -> None:
        """As `cancel`, for `contextlib.aclosing`."""
        self.cancel()

    def waiting_events(self) -> list[Event]:
        """Those that are there already, without waiting; an error among them is raised once those before it were taken."""
        found: list[Event] = []
        while not self.is_over and self._events and not (found and self._events[0].error is not None):
            found.append(self._note(self._events.popleft()))
        return found


def deliver(items: list[tuple[Stream, Event]]) -> None:
    """Hand events over; of streams of one loop, in that loop."""
    for stream, event in items:
        stream.put(event)
