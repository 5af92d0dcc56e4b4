"""A client that costs little, so that it takes no time from the server beside it: one streamed completion a connection."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

_EVENT = b"data: "
_DONE = b"data: [DONE]"


@dataclass
class Outcome:
    """Of one request, in seconds.

    Attributes:
        status: of HTTP; 0: the connection failed.
        first: until the first event, None without one.
        gaps: between the events after it.
        is_whole: whether the stream ended as it should.
        error: what failed.
    """

    status: int = 0
    first: float | None = None
    gaps: list[float] = field(default_factory=list)
    is_whole: bool = False
    error: str = ""


async def stream(port: int, body: dict[str, Any], stop_after: int | None = None) -> Outcome:
    """Stream a completion from a server on this machine; after `stop_after` events the connection is dropped."""
    outcome, began = Outcome(), time.perf_counter()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        outcome.error = str(error)
        return outcome
    try:
        writer.write(_request(port, body))
        outcome.status = int((await reader.readuntil(b"\r\n")).split()[1])
        await reader.readuntil(b"\r\n\r\n")
        if outcome.status == 200:
            await _read_events(reader, outcome, began, stop_after)
    except (OSError, asyncio.IncompleteReadError, ValueError) as error:
        outcome.error = f"{type(error).__name__}: {error}"
    finally:
        writer.close()
    return outcome


def _request(port: int, body: dict[str, Any]) -> bytes:
    data = json.dumps({**body, "stream": True}).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + data


async def _read_events(reader: asyncio.StreamReader, outcome: Outcome, began: float, stop_after: int | None) -> None:
    """Lines that are no events are chunk sizes of HTTP, or empty."""
    last, events = began, 0
    while line := await reader.readline():
        if line.startswith(_DONE):
            outcome.is_whole = True
            return
        if not line.startswith(_EVENT):
            continue
        now = time.perf_counter()
        if outcome.first is None:
            outcome.first = now - began
        else:
            outcome.gaps.append(now - last)
        last, events = now, events + 1
        if events == stop_after:
            outcome.is_whole = True
            return
