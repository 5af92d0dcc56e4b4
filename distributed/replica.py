"""One of the processes that serve: it has the models, and the application of `foveal serve` over them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import FovealError
from ..serve.app import create_app
from ..serve.loading import ServiceOptions, opened
from ..serve.logs import log_to
from ..serve.settings import ServeSettings

REPLICA_HEADER = "X-Foveal-Replica"


class Replica:
    """Opens models, and closes them when Ray wants it to end, which is once what it has begun is answered.

    Args:
        bundles: by the names that clients ask for.
        options: how each is served.
        settings: what is allowed.
        log_level: of the log, which goes to Ray's files.
    """

    def __init__(
        self, bundles: Mapping[str, Path], options: ServiceOptions, settings: ServeSettings, log_level: str = "info"
    ) -> None:
        log_to(level=log_level)
        self._settings = settings
        with ExitStack() as stack:
            self._served = {name: stack.enter_context(opened(name, path, options)) for name, path in bundles.items()}
            self._stack = stack.pop_all()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The application; every answer says which replica it is of."""
        from ray import serve

        app = create_app(self._served, self._settings)
        app.add_middleware(_Named, name=serve.get_replica_context().replica_id.unique_id)
        return app

    def record_replica_metadata(self) -> dict[str, int]:
        """Called by Ray once: what its routers know of the replica. A replacement of one that died has the rank of that."""
        from ray import serve

        from .router import PLACE

        rank = serve.get_replica_context().rank
        return {} if rank is None else {PLACE: rank.rank}

    def check_health(self) -> None:
        """Called by Ray now and then; a replica that raises is replaced.

        Raises:
            FovealError: the engines of a model do not work any more.
        """
        for name, served in self._served.items():
            if not served.service.is_alive:
                raise FovealError(f'the engines of "{name}" failed; see the log of this replica')

    async def __del__(self) -> None:
        if hasattr(self, "_stack"):  # not where a model could not be opened
            await asyncio.to_thread(self._stack.close)


class _Named:
    """ASGI, around the application."""

    def __init__(self, app: ASGIApp, name: str) -> None:
        self._app, self._name = app, name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REPLICA_HEADER] = self._name
            await send(message)

        await self._app(scope, receive, named if scope["type"] == "http" else send)
