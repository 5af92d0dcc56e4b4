"""Streams by themselves: events in order, an end, an error once."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest

from foveal import InputError
from foveal.runtime.service.event import Event
from foveal.runtime.service.stream import AsyncStream, Stream, ThreadStream, deliver


def event(index: int = 0, text: str = "x", reason: Any = None, error: Any = None) -> Event:
    """Of a text."""
    return Event(index, text, None, None, -1, (), 0.0, reason, error)


def texts(events: list[Event]) -> list[str]:
    return [one.text for one in events]


def test_a_stream_is_over_when_all_its_texts_have_ended() -> None:
    """In whatever order their events come."""
    stream = ThreadStream(2, 5, "a")
    cancelled = []
    stream.on_cancel = lambda: cancelled.append(1)
    deliver([(stream, event(1, "a")), (stream, event(1, "b", "stop")), (stream, event(0, "c")), (stream, event(0, "d", "end"))])
    assert not stream.is_over
    assert texts(list(stream)) == ["a", "b", "c", "d"]
    assert stream.is_over
    assert stream.finish_reasons == {1: "stop", 0: "end"}
    assert list(stream) == []
    stream.cancel()
    assert cancelled == [], "there is nothing to cancel any more"
    assert (stream.n, stream.prompt_tokens, stream.session) == (2, 5, "a")


def test_an_error_is_raised_once_and_ends_all_texts() -> None:
    """The others are cancelled, as nobody reads them."""
    stream = ThreadStream(2, 5, None)
    cancelled = []
    stream.on_cancel = lambda: cancelled.append(1)
    for one in (event(0, "a"), event(1, error=InputError("no")), event(0, "b")):
        stream.put(one)
    assert next(stream).text == "a"
    with pytest.raises(InputError, match="no"):
        next(stream)
    assert list(stream) == []
    assert cancelled == [1]


def test_a_thread_waits_for_events() -> None:
    """As long as it takes."""
    stream = ThreadStream(1, 1, None)
    threading.Timer(0.02, lambda: deliver([(stream, event(text="a", reason="end"))])).start()
    assert texts(list(stream)) == ["a"]


def test_a_task_waits_for_events() -> None:
    """And gets those that are there at once, in order, with or without waiting."""

    async def work() -> None:
        loop = asyncio.get_running_loop()
        stream = AsyncStream(loop, 1, 1, None)
        assert stream.waiting_events() == []
        loop.call_later(0.01, deliver, [(stream, event(text="a")), (stream, event(text="b"))])
        assert (await anext(stream)).text == "a"
        assert texts(stream.waiting_events()) == ["b"]
        assert stream.waiting_events() == []
        loop.call_soon(deliver, [(stream, event(text="c"))])
        loop.call_later(0.01, deliver, [(stream, event(text="d", reason="end"))])
        assert texts([one async for one in stream]) == ["c", "d"]
        assert stream.is_over
        assert [one async for one in stream] == stream.waiting_events() == []

    asyncio.run(work())


def test_events_before_an_error_are_not_lost() -> None:
    """Those that wait together with it come first, then it is raised, once."""

    async def work() -> None:
        stream = AsyncStream(asyncio.get_running_loop(), 1, 1, None)
        deliver([(stream, event(text="a")), (stream, event(text="b")), (stream, event(error=InputError("no")))])
        assert texts(stream.waiting_events()) == ["a", "b"]
        with pytest.raises(InputError, match="no"):
            stream.waiting_events()
        assert stream.waiting_events() == []
        assert [one async for one in stream] == []

    asyncio.run(work())


def test_a_task_that_stops_waiting_loses_nothing() -> None:
    """As with a time limit for each event."""

    async def work() -> None:
        stream = AsyncStream(asyncio.get_running_loop(), 1, 1, None)
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(stream), 0.005)
        deliver([(stream, event(text="a", reason="end"))])
        assert (await asyncio.wait_for(anext(stream), 5)).text == "a"

    asyncio.run(work())


def test_a_stream_by_itself_takes_no_events() -> None:
    """Those for threads and loops do."""
    with pytest.raises(NotImplementedError):
        Stream(1, 1, None).put(event())


def test_a_stream_of_another_loop() -> None:
    """Its events do not come to this one, which would wait for ever; those that are there are given."""

    async def opened() -> AsyncStream:
        stream = AsyncStream(asyncio.get_running_loop(), 1, 1, None)
        deliver([(stream, event(text="a"))])
        return stream

    async def go_on(stream: AsyncStream) -> str:
        text = (await anext(stream)).text
        with pytest.raises(InputError, match="opened for another event loop"):
            await anext(stream)
        return text

    assert asyncio.run(go_on(asyncio.run(opened()))) == "a"


def test_closing_cancels() -> None:
    """As `contextlib.closing` and `aclosing` do it."""
    cancelled = []

    async def work() -> None:
        async with contextlib.aclosing(AsyncStream(asyncio.get_running_loop(), 1, 1, None)) as stream:
            stream.on_cancel = lambda: cancelled.append("async")

    asyncio.run(work())
    with contextlib.closing(ThreadStream(1, 1, None)) as stream:
        stream.on_cancel = lambda: cancelled.append("thread")
    assert cancelled == ["async", "thread"]
