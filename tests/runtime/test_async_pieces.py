"""`async for`: what a cancelled task leaves, and how it is closed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from foveal import SessionBusyError
from foveal.runtime.async_pieces import AsyncPieces


class Slow(AsyncPieces[int]):
    """Numbers, of which each is computed until `go` is set."""

    def __init__(self, count: int = 3, error: BaseException | None = None) -> None:
        super().__init__()
        self.go, self.closed, self.error = threading.Event(), 0, error
        self._numbers = iter(range(count))

    def _next(self) -> int:
        assert self.go.wait(10)
        if self.error is not None:
            raise self.error
        return next(self._numbers)

    def _close(self) -> None:
        self.closed += 1
        self._numbers = iter(())


@pytest.fixture
def slow() -> Iterator[Slow]:
    """And no thread that waits for it for ever."""
    numbers = Slow()
    yield numbers
    numbers.go.set()


async def give_up(pieces: AsyncPieces[Any]) -> None:
    """A task waits for the next piece, and is cancelled."""
    task = asyncio.ensure_future(anext(pieces))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_cancelled_task_loses_no_piece(slow: Slow) -> None:
    """Whoever goes on has it, in this loop, in another or in none."""
    asyncio.run(_given_up_and_gone_on(slow))

    slow = Slow(3)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(give_up(slow))
    slow.go.set()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    assert next(slow) == 0
    assert asyncio.run(_rest(slow)) == [1, 2]
    with pytest.raises(StopIteration):
        next(slow)


async def _given_up_and_gone_on(slow: Slow) -> None:
    await give_up(slow)
    with pytest.raises(SessionBusyError, match="next was called while a thread computes"):
        next(slow)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(anext(slow), 0.01)
    slow.go.set()
    assert await _rest(slow) == [0, 1, 2]


async def _rest(pieces: AsyncPieces[Any]) -> list[Any]:
    return [piece async for piece in pieces]


def test_two_tasks_do_not_wait_for_one_piece(slow: Slow) -> None:
    """The second is refused, and takes nothing from the first."""

    async def both() -> int:
        first = asyncio.ensure_future(anext(slow))
        await asyncio.sleep(0.01)
        with pytest.raises(SessionBusyError, match="two tasks wait"):
            await anext(slow)
        slow.go.set()
        return await first

    assert asyncio.run(both()) == 0


def test_it_is_closed_while_a_thread_computes(slow: Slow) -> None:
    """At once for who closes it, who need not wait; the thread closes what it uses, once it has computed its piece."""

    async def closed() -> None:
        await give_up(slow)
        slow.close()
        assert slow.closed == 0
        assert await _rest(slow) == list(slow) == []
        slow.go.set()
        await slow.aclose()
        assert slow.closed >= 1
        assert await _rest(slow) == []

    asyncio.run(closed())


def test_aclosing_waits_for_the_thread(slow: Slow) -> None:
    """As `contextlib.aclosing` calls it when the task that is in it is cancelled."""

    async def run() -> None:
        async with contextlib.aclosing(slow):
            await _rest(slow)

    async def cancelled() -> None:
        task = asyncio.ensure_future(run())
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
        slow.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert slow.closed == 1

    asyncio.run(cancelled())


def test_an_error_is_raised_once_where_the_piece_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody took it: nothing is logged of an exception that was never retrieved."""

    async def left(broken: Slow) -> None:
        await give_up(broken)
        broken.go.set()

    broken = Slow(error=ValueError("broken"))
    asyncio.run(left(broken))
    with pytest.raises(ValueError, match="broken"):
        next(broken)
    broken.error = None
    assert next(broken) == 0

    asyncio.run(left(Slow(error=ValueError("broken"))))
    gc.collect()
    assert caplog.records == []
