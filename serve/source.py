"""Events of all texts of a request, as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..runtime.service.event import Event
from ..runtime.service.stream import AsyncStream

Batch = list[tuple[int, Event]]
"""Events that were there together, each with the index of its text among all of the request."""


class Source:
    """Reads the streams of a request's prompts.

    Args:
        streams: one of each prompt, all with the same number of texts.
        ids: of the prompts.
    """

    def __init__(self, streams: Sequence[AsyncStream], ids: Sequence[list[int]]) -> None:
        self.streams, self.ids = streams, ids
        self._pumps: list[asyncio.Task[None]] = []
        self._found: asyncio.Queue[Batch | BaseException] = asyncio.Queue()

    @property
    def prompt_tokens(self) -> int:
        """Of all prompts, what their session held before included."""
        return sum(one.prompt_tokens + (one.restored_tokens if one.session else 0) for one in self.streams)

    @property
    def restored_tokens(self) -> int:
        """Of these, what was not computed."""
        return sum(one.restored_tokens for one in self.streams)

    def stream_of(self, index: int) -> AsyncStream:
        """Of a text."""
        return self.streams[index // self.streams[0].n]

    def cancel(self) -> None:
        """Want no more."""
        for stream in self.streams:
            stream.cancel()

    async def next(self) -> Batch:
        """The next events, at least one; none: all is over.

        Raises: the error that a text ended with; the others are given up then.
        """
        try:
            return await (self._next_of_one() if len(self.streams) == 1 else self._next_of_all())
        except BaseException:
            self.cancel()
            for pump in self._pumps:
                pump.cancel()
            raise

    async def _next_of_one(self) -> Batch:
        stream = self.streams[0]
        if stream.is_over:
            return []
        first = await stream.__anext__()
        return [(event.index, event) for event in (first, *stream.waiting_events())]

    async def _next_of_all(self) -> Batch:
        if not self._pumps:
            self._pumps = [asyncio.ensure_future(self._pump(index)) for index in range(len(self.streams))]
        if self._found.empty() and all(stream.is_over for stream in self.streams):
            return []
        found = await self._found.get()
        if isinstance(found, BaseException):
            raise found
        return found

    async def _pump(self, index: int) -> None:
        stream = self.streams[index]
        try:
            async for first in stream:
                events = (first, *stream.waiting_events())
                self._found.put_nowait([(index * stream.n + event.index, event) for event in events])
        except Exception as error:  # whoever reads is told
            self._found.put_nowait(error)
