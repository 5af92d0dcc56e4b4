"""An answer piece by piece: server-sent events, straight to ASGI, as little as possible of everything for each token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .answering import Answering
from .failures import failure_of
from .source import Batch

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class EventStream(Response):
    """Sends what comes, all that is there at once in one write.

    Args:
        answering: makes it.
        first: events that are there already.
        stall_seconds: after which a client that reads nothing is given up.
        on_end: called when all is over, however it ended.
    """

    def __init__(self, answering: Answering, first: Batch, stall_seconds: float, on_end: Callable[[], None]) -> None:
        super().__init__()
        self._answering, self._first, self._stall, self._on_end = answering, first, stall_seconds, on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await self._send_all(_Patient(send, self._stall))
        finally:
            self._answering.source.cancel()
            self._on_end()

    async def _send_all(self, send: _Patient) -> None:
        answering, batch = self._answering, self._first
        try:
            while batch:
                data = answering.chunks(batch)
                if data:
                    await send(data)
                batch = await answering.source.next()
            await send(answering.end(), more=False)
        except StalledClient:
            answering.record.error = "stalled"
            raise
        except Exception as error:
            failure = failure_of(error)
            answering.record.error = failure.code
            await send(b"data: " + failure.body + b"\n\n", more=False)


class StalledClient(Exception):
    """A client that does not read."""


class _Patient:
    """Sends bodies, and waits only so long for a client that does not read."""

    def __init__(self, send: Send, seconds: float) -> None:
        self._send, self._seconds = send, seconds
        self._is_late = False

    async def __call__(self, body: bytes, more: bool = True) -> None:
        task = asyncio.current_task()
        assert task is not None
        timer = asyncio.get_running_loop().call_later(self._seconds, self._give_up, task)
        try:
            await self._send({"type": "http.response.body", "body": body, "more_body": more})
        except asyncio.CancelledError:
            if self._is_late:
                raise StalledClient from None
            raise
        finally:
            timer.cancel()

    def _give_up(self, task: asyncio.Task[object]) -> None:
        self._is_late = True
        task.cancel()
