"""In front of everything: ids of requests, tokens, errors that nobody caught, and the log."""

from __future__ import annotations

import logging
import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .bearers import Bearers
from .event_stream import StalledClient
from .failures import Failure, closed, failure_of
from .metrics import Answered
from .records import Record
from .settings import ServeSettings

_log = logging.getLogger("foveal.serve.requests")
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_RECORD = "foveal.record"
_OPEN = ("/health", "/ready")


def record_of(scope: Scope) -> Record:
    """What is written down of the request at hand."""
    record: Record = scope[_RECORD]
    return record


def open_paths(settings: ServeSettings) -> frozenset[str]:
    """Those that need no token."""
    page, metrics = ("/",) if settings.page else (), ("/metrics",) if settings.opens_metrics else ()
    return frozenset((*_OPEN, *page, *metrics))


class State:
    """Of a server.

    Attributes:
        is_draining: whether it takes no new requests, because it is about to end.
        running: requests that are not answered yet.
    """

    def __init__(self) -> None:
        self.is_draining, self.running = False, 0


class Gate:
    """ASGI, around an application.

    Args:
        app: the application.
        settings: of the server.
        state: of the server.
        answered: counts of answers.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings, state: State, answered: Answered) -> None:
        self._app, self._bearers, self._state, self._answered = app, Bearers(settings.tokens), state, answered
        self._open = open_paths(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        record = scope[_RECORD] = Record(given if _ID.fullmatch(given) else uuid.uuid4().hex, scope["method"], scope["path"])
        answer = _Answer(send, record)
        self._state.running += 1
        try:
            await self._let_in(scope, headers, record, receive, answer.send)
        except StalledClient:
            record.status = 499
        except Exception as error:
            failure = failure_of(error)
            record.error = failure.code
            if not answer.has_begun:
                await failure.response(scope, receive, answer.send)
        finally:
            self._state.running -= 1
            self._note(scope, record)

    async def _let_in(self, scope: Scope, headers: Headers, record: Record, receive: Receive, send: Send) -> None:
        if scope["path"] not in self._open and not scope["path"].startswith("/page/"):
            record.owner = self._bearers.owner(headers)
        if self._state.is_draining and scope["method"] == "POST":
            raise closed("the server is about to end and takes no requests; ask again, or ask another one")
        await self._app(scope, receive, send)

    def _note(self, scope: Scope, record: Record) -> None:
        route = scope.get("route")
        record.path = getattr(route, "path", "") or "other"
        self._answered.counts[record.path, record.status] += 1
        level = logging.DEBUG if record.path in _OPEN or record.path == "/metrics" else logging.INFO
        if _log.isEnabledFor(level):
            _log.log(level, "request", extra={"fields": record.line()})


class _Answer:
    """Adds the id to an answer, and notes its status."""

    def __init__(self, send: Send, record: Record) -> None:
        self._send, self._record, self.has_begun = send, record, False

    async def send(self, message: Message) -> None:
        if not self.has_begun:
            self.has_begun = True
            self._record.status = self._record.status or message["status"]
            MutableHeaders(scope=message)["X-Request-Id"] = self._record.id
        await self._send(message)


__all__ = ["Failure", "Gate", "State", "open_paths", "record_of"]
