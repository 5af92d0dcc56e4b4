"""Connections, held to limits that uvicorn has not: on what comes before a body and how long that takes, and on who reads."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .failures import Failure, invalid

MOST_HEAD = 64 << 10
"""Bytes of a request's line and headers."""
_LINGER_SECONDS = 2.0
_HEAD = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
_PHRASES = {400: b"Bad Request", 431: b"Request Header Fields Too Large"}


@dataclass(frozen=True)
class ConnectionLimits:
    """What one connection may take.

    Attributes:
        head_seconds: within which the line and the headers of a request have to arrive, counted from when the connection is
            there, or from their first byte.
        stall_seconds: after which a client that reads nothing is cut off.
        head_bytes: of line and headers.
    """

    head_seconds: float = 30.0
    stall_seconds: float = 60.0
    head_bytes: int = MOST_HEAD


class Connection(HttpToolsProtocol):
    """One connection.

    A head that is too large is refused with 431, what is not HTTP with 400, both in OpenAI's form. A client that sends nothing,
    or its head byte by byte, or goes on with a body after the answer to it, is cut off after some time. So is one that reads
    nothing, at which the request that it made ends as for any client that has gone; whatever it was to be sent is dropped, as a
    transport that is only closed would wait for it for ever.

    Args:
        limits: of it.
        given: as of uvicorn's own protocol.
    """

    def __init__(self, limits: ConnectionLimits, **given: Any) -> None:
        super().__init__(**given)
        self._limits = limits
        self._arriving: asyncio.TimerHandle | None = None
        self._stalling: asyncio.TimerHandle | None = None
        self._head_bytes, self._in_head, self._has_turned, self._is_refused = 0, True, False, False
        self._data, self._is_put_off = b"", False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request, but not for ever."""
        super().connection_made(transport)
        self._watch_arrival()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing."""
        for timer in (self._arriving, self._stalling):
            if timer is not None:
                timer.cancel()
        self._arriving = self._stalling = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse it, as far as it is taken."""
        if self._is_refused:
            return
        self._has_turned, self._data = False, data
        super().data_received(data)
        if self._in_head and not self._has_turned and not self._is_refused:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes:
                self._refuse(_too_large(self._limits.head_bytes))
        if not self._is_answering and self._arriving is None and not self.transport.is_closing():
            self._watch_arrival()

    def on_message_begin(self) -> None:
        """A request's first byte."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self._watch_arrival()

    def on_headers_complete(self) -> None:
        """A request's head is there."""
        self._in_head, self._has_turned = False, True
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._limits.head_bytes:
            self._head_bytes = size
            raise httptools.HttpParserError("the head is too large")
        self._is_put_off = any(name == b"upgrade" for name, _ in self.headers) and self.parser.should_upgrade()
        if self._is_put_off:  # the parser takes no body now: what comes is of the other protocol
            return
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request is there; another may follow."""
        if self._is_put_off:
            return
        super().on_message_complete()
        self._in_head, self._has_turned, self._head_bytes = True, True, 0

    def send_400_response(self, msg: str) -> None:
        """Refuse what can't be parsed."""
        if self._head_bytes > self._limits.head_bytes:
            self._refuse(_too_large(self._limits.head_bytes))
        else:
            self._refuse(invalid("this is no HTTP request that can be followed; send HTTP/1.1", code="invalid_http"))

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        if self._stalling is None:
            self._stalling = self.loop.call_later(self._limits.stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read."""
        super().resume_writing()
        if self._stalling is not None:
            self._stalling.cancel()
            self._stalling = None

    def timeout_keep_alive_handler(self) -> None:
        """No other request came; a client that has not read its answer by now never will."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        super().timeout_keep_alive_handler()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _watch_arrival(self) -> None:
        if self._arriving is None:
            self._arriving = self.loop.call_later(self._limits.head_seconds, self._give_up)

    def _give_up(self) -> None:
        self._arriving = None
        if not self._is_answering:
            self.transport.abort()

    def _refuse(self, failure: Failure) -> None:
        """Answer without a look at the rest; where another answer is on its way, end the connection."""
        self._is_refused = True
        if self._is_answering:
            self.transport.abort()
            return
        body = failure.body
        self.transport.write(_HEAD % (failure.status, _PHRASES[failure.status], len(body)) + body)
        self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.abort)  # a client that still sends would not see the answer before

    def _unsupported_upgrade_warning(self) -> None:
        """Clients may ask for another protocol: curl --http2 and Java's do, with a body. They are answered as if they had not.

        Called where the parser's exception is handled, which says how far it came.
        """
        if not self._is_put_off:
            return
        came = sys.exc_info()[1]
        assert isinstance(came, httptools.HttpParserUpgrade)
        version, method, rest = self.parser.get_http_version(), self.parser.get_method(), self._data[came.args[0] :]
        head = b"%b %b HTTP/%b\r\n" % (method, self.url, version.encode())
        head += b"".join(b"%b: %b\r\n" % header for header in _without_upgrade(self.headers))
        self._is_put_off, self.parser = False, httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self.data_received(head + b"\r\n" + rest)


def _without_upgrade(headers: list[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    for name, value in headers:
        if name == b"connection":
            kept = [word.strip() for word in value.split(b",") if word.strip().lower() not in (b"upgrade", b"http2-settings")]
            yield name, b", ".join(kept)
        elif name not in (b"upgrade", b"http2-settings"):
            yield name, value


def _too_large(most: int) -> Failure:
    return Failure(431, f"the headers are larger than the {most} bytes that this server takes", code="headers_too_large")
