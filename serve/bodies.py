"""Bodies of requests, as far as they are allowed."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from .failures import Failure


async def read_body(request: Request, most: int, seconds: float) -> bytes:
    """All of it.

    Args:
        request: whose body was not read yet.
        most: bytes that are taken.
        seconds: within which it has to arrive.

    Raises:
        Failure: 413 for a longer one, before all of it came; 408 for one that takes longer; 415 for what is not JSON, or is
            compressed.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Failure(415, f'the content type is "{kind[:80]}", expected application/json', code="unsupported_media_type")
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise Failure(415, f'the body is encoded as "{coding[:80]}"; send it as it is', code="unsupported_media_type")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > most:
        raise _too_large(most)
    try:
        return await asyncio.wait_for(_read(request, most), seconds)
    except asyncio.TimeoutError:
        raise Failure(408, f"the body did not arrive within {seconds:g} s; send it at once", code="request_timeout") from None


async def _read(request: Request, most: int) -> bytes:
    parts, size = [], 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Failure(400, "the client had gone before its request was there", code="disconnected")
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise _too_large(most)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_large(most: int) -> Failure:
    return Failure(413, f"the body is larger than the {most} bytes that this server takes; shorten it", code="body_too_large")
