"""Clients that go before they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import Receive


class Disconnects:
    """Calls back once a client is gone. To be made when its body was read.

    Args:
        receive: of ASGI.
        on_gone: what to do then.
    """

    def __init__(self, receive: Receive, on_gone: Callable[[], None]) -> None:
        self.is_gone = False
        self._on_gone = on_gone
        self._task = asyncio.ensure_future(self._wait(receive))

    async def _wait(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.is_gone = True
        self._on_gone()

    def close(self) -> None:
        """Watch no more."""
        self._task.cancel()
