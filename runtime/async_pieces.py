"""An iterator for `for` and `async for`: for the latter, each piece is computed in a thread of the event loop's pool."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextvars import Context, copy_context
from typing import Any, Generic, TypeVar, cast

from ..errors import SessionBusyError

Piece = TypeVar("Piece")
_Self = TypeVar("_Self", bound="AsyncPieces[Any]")
_END: Any = object()
_Found = tuple[Any, BaseException | None]
"""A piece or the end, and what was raised in its place."""


class AsyncPieces(Iterator[Piece], Generic[Piece]):
    """Gives what `_next` gives, until that raises StopIteration.

    A task that is cancelled while it waits loses nothing: the piece that was being computed comes first when someone goes on,
    in whichever loop or thread. `contextlib.closing` and `aclosing` take it.
    """

    _coming: Future[_Found] | None = None
    """A piece that a thread computes, or has computed, and that nobody has taken."""
    _is_awaited = _is_to_close = False

    def __init__(self) -> None:
        self._handing_over = threading.Lock()

    def _next(self) -> Piece:
        """The next piece; one call at a time of this and `_close`, else SessionBusyError."""
        raise NotImplementedError

    def _close(self) -> None:
        """Let there be no more."""
        raise NotImplementedError

    def __next__(self) -> Piece:
        if self._coming is None:
            return self._next()
        if not (self._coming.done() or self._is_to_close):
            raise SessionBusyError("next was called while a thread computes the piece that async for waited for; wait for it")
        piece = self._take_coming()
        if piece is _END:
            raise StopIteration
        return cast(Piece, piece)

    def __aiter__(self: _Self) -> _Self:
        return self

    async def __anext__(self) -> Piece:
        import asyncio  # here, so that importing the runtime stays quick

        if self._is_awaited:
            raise SessionBusyError("two tasks wait for the next piece of one iterator; let one of them hand pieces on")
        if self._coming is None:
            coming: Future[_Found] = Future()
            coming.set_running_or_notify_cancel()  # now a task that gives up waiting does not cancel it
            asyncio.get_running_loop().run_in_executor(None, self._compute, coming, copy_context())
            self._coming = coming
        self._is_awaited = True
        try:
            if not self._is_to_close:
                await asyncio.wrap_future(self._coming)
        finally:
            self._is_awaited = False
        piece = self._take_coming()
        if piece is _END:
            raise StopAsyncIteration
        return cast(Piece, piece)

    def close(self) -> None:
        """Let there be no more; at once, or as soon as the piece that a thread computes for `async for` is there."""
        with self._handing_over:
            if self._coming is not None and not self._coming.done():
                self._is_to_close = True
                return
        self._coming = None
        self._close()

    async def aclose(self) -> None:
        """As `close`, and wait until the thread has stopped."""
        import asyncio

        coming = self._coming
        self.close()
        if coming is not None:
            await asyncio.wrap_future(coming)

    def _compute(self, coming: Future[_Found], context: Context) -> None:
        """In a thread of the pool."""
        try:
            found: _Found = context.run(self._next_or_end), None
        except BaseException as error:  # whoever takes the piece is told
            found = _END, error
        with self._handing_over:
            if self._is_to_close:
                self._close()
            coming.set_result(found)

    def _next_or_end(self) -> Any:
        try:
            return self._next()
        except StopIteration:  # which can't leave a coroutine
            return _END

    def _take_coming(self) -> Any:
        """What a thread has computed; nothing, where it is closed."""
        if self._is_to_close or self._coming is None:
            return _END
        (piece, error), self._coming = self._coming.result(), None
        if error is not None:
            raise error
        return piece
