"""A process that serves: it listens, and ends without dropping what it has begun."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

import uvicorn
from fastapi import FastAPI

from ..errors import ConfigError
from .connections import Connection, ConnectionLimits
from .server import Server

_log = logging.getLogger("foveal.serve")
_CLOSE_SECONDS = 5
"""Within which answers that are done have to be read."""
_CUT_SECONDS = 1
"""Before that time is over connections are cut off, so that their requests end as those of any client that goes."""


@dataclass(frozen=True)
class Listening:
    """Where to listen.

    Attributes:
        host: name or address.
        port: 0: any that is free.
        drain_seconds: that requests may still take once the process is told to end.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    drain_seconds: float = 30.0


class GracefulServer(uvicorn.Server):
    """The first SIGTERM or SIGINT drains it: it still answers, but takes nothing new. The second ends all requests at once with
    what they have; the third cuts connections off.

    Args:
        config: of uvicorn.
        server: what is drained.
        drain_seconds: that it may take.
        on_listening: called once requests are taken, and signals heard.
    """

    def __init__(
        self, config: uvicorn.Config, server: Server, drain_seconds: float, on_listening: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(config)
        self._server, self._drain_seconds, self._on_listening = server, drain_seconds, on_listening
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drainings: list[asyncio.Task[None]] = []
        self._signals = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            self._on_listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close connections; one whose client does not read is cut off after some time."""
        seconds = self.config.timeout_graceful_shutdown or 0
        timer = asyncio.get_running_loop().call_later(max(0.0, seconds - _CUT_SECONDS), self._cut_off)
        await super().shutdown(sockets)
        timer.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called for signals, in the main thread between any two instructions."""
        self._signals += 1
        if self._loop is None:
            self.should_exit = True
            return
        self._server.state.is_draining = True
        if self._signals <= 2:
            self._loop.call_soon_threadsafe(self._begin_draining, self._drain_seconds if self._signals == 1 else 0.0)
        else:
            self._loop.call_soon_threadsafe(self._cut_off)

    def _begin_draining(self, seconds: float) -> None:
        self._drainings.append(asyncio.ensure_future(self._drain(seconds)))

    async def _drain(self, seconds: float) -> None:
        _log.info("draining: %d requests, for at most %g s", self._server.state.running, seconds)
        try:
            await self._server.drain(seconds)
        finally:
            self.should_exit = True

    def _cut_off(self) -> None:
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()


_SWITCH_SECONDS = 1e-4
"""After which a Python thread lets another one go on, 5 ms if nothing is said: the thread that steps the batch would wait so
long for the event loop, and the next step with it (docs/serving.md)."""


def serve(app: FastAPI, listening: Listening, on_listening: Callable[[str], None]) -> None:
    """Serve until a signal comes; then what has begun is finished, or ended with what it has.

    Args:
        app: as `create_app` makes it.
        listening: where.
        on_listening: told the address once requests are taken.

    Raises:
        ConfigError: it can't listen there.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    sockets = [bind(listening.host, listening.port)]
    host, port = sockets[0].getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    GracefulServer(config_of(app), app.state.server, listening.drain_seconds, lambda: on_listening(address)).run(sockets)


def config_of(app: FastAPI, close_seconds: int = _CLOSE_SECONDS) -> uvicorn.Config:
    """How an application is served.

    Args:
        app: as `create_app` makes it, of whose settings connections have their limits.
        close_seconds: within which answers that are done have to be read.
    """
    settings = app.state.server.settings
    limits = ConnectionLimits(settings.body_timeout, settings.stall_timeout)
    return uvicorn.Config(
        app,
        http=functools.partial(Connection, limits),  # type: ignore[arg-type] # anything that makes a protocol will do
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        ws="none",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=close_seconds,
    )


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigError: it can't.
    """
    try:
        if not 0 <= port <= 65_535:  # getaddrinfo would take it modulo 65,536
            raise OverflowError("ports are 0 to 65535")
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, OverflowError, UnicodeError) as error:
        raise _no_place(host, port, error) from error
    try:
        if sys.platform != "win32":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(2048)
    except OSError as error:
        bound.close()
        raise _no_place(host, port, error) from error
    return bound


def _no_place(host: str, port: int, error: Exception) -> ConfigError:
    return ConfigError(f"can't listen on {host}:{port}: {error}; choose another --host or --port")
