"""The application: routes over the models that are served, for uvicorn, Ray Serve or whatever else runs ASGI."""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import msgspec
from fastapi import FastAPI, Request
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.responses import Response

from .. import __version__
from ..errors import FovealError
from .answering import Answering
from .answers import ModelEntry, ModelList
from .bodies import read_body
from .completions import wanted_completion
from .disconnects import Disconnects
from .event_stream import EventStream
from .failures import Failure, failure_of
from .forms import CompletionForm, Form
from .gate import Gate, State, record_of
from .metrics import Answered, registry_of
from .opening import open_source
from .requests import CompletionRequest, parse
from .served import Served
from .sessions import key_of
from .settings import ServeSettings
from .source import Source
from .status import status_of
from .token_texts import Offsets, TokenTexts
from .wanted import Wanted

_THREADS = 4
"""That split prompts and read stores, so that the event loop need not."""


class Server:
    """What the routes share.

    Args:
        served: models by the names that clients ask for.
        settings: what it allows.

    Attributes:
        state: whether it is about to end, and what is not answered yet.
    """

    def __init__(self, served: Mapping[str, Served], settings: ServeSettings) -> None:
        self.served, self.settings = dict(served), settings
        self.state, self.answered = State(), Answered()
        self.registry = registry_of(self.served, self.answered)
        self._texts = {name: TokenTexts(one.model.tokenizer) for name, one in self.served.items()}
        self._pool: ThreadPoolExecutor | None = None

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Of the application: the models' own is that of whoever opened them."""
        with ThreadPoolExecutor(_THREADS, "foveal-serve") as self._pool:
            yield
        self._pool = None

    @property
    def is_ready(self) -> bool:
        """Whether it takes requests for all its models."""
        return not self.state.is_draining and all(one.service.is_ready for one in self.served.values())

    async def drain(self, seconds: float) -> None:
        """Take no more requests, let those that are there go on for so long, and end the rest with what they have."""
        self.state.is_draining = True
        closing = [asyncio.to_thread(one.service.close, seconds) for one in self.served.values()]
        await asyncio.gather(*closing)

    def model(self, name: str) -> Served:
        """A model by its name.

        Raises:
            Failure: 404 for one that is not served.
        """
        if (found := self.served.get(name)) is None:
            names = ", ".join(self.served)
            raise Failure(
                404, f'there is no model "{name[:100]}" here; there are: {names}', param="model", code="model_not_found"
            )
        return found

    async def complete(self, request: Request) -> Response:
        """`POST /v1/completions`."""
        body = await read_body(request, self.settings.max_body, self.settings.body_timeout)
        asked = parse(body, CompletionRequest)
        served = self.model(asked.model)
        wanted = wanted_completion(asked, self.settings)
        offsets = [] if wanted.logprobs is None else [Offsets(served.model.tokenizer) for _ in range(wanted.texts)]
        return await self.answer(request, served, wanted, CompletionForm(self._texts[served.name], offsets))

    async def answer(self, request: Request, served: Served, wanted: Wanted, form: Form) -> Response:
        """Generate; errors before the first token are a status, also of streams."""
        record, found = record_of(request.scope), list[Source]()
        key = None if wanted.session is None else key_of(record.owner, wanted.session)
        record.model = served.name
        record.session = None if key is None else hashlib.sha256(key.encode()).hexdigest()[:12]
        watch = Disconnects(request.receive, lambda: _give_up(found))
        try:
            opening = functools.partial(open_source, served, wanted, key, self.settings, asyncio.get_running_loop())
            source = await asyncio.get_running_loop().run_in_executor(self._pool, opening)
            found.append(source)
            if watch.is_gone:
                source.cancel()
            first = await source.next()
            answering = Answering(served, wanted, form, source, record)
            if wanted.streams:
                return EventStream(answering, first, self.settings.stall_timeout, watch.close)
            body = await answering.whole(first)
        except BaseException:
            watch.close()
            _give_up(found)
            raise
        watch.close()
        if watch.is_gone:
            record.status = 499
        return Response(body, media_type="application/json")


def _give_up(sources: list[Source]) -> None:
    for source in sources:
        source.cancel()


def create_app(served: Mapping[str, Served], settings: ServeSettings | None = None) -> FastAPI:
    """The application. Models and services stay the caller's: it opens and closes them.

    Args:
        served: by the name that clients ask for.
        settings: what it allows.

    Returns:
        An application whose `state.server` is the `Server`.
    """
    server = Server(served, settings or ServeSettings())
    app = FastAPI(title="foveal", version=__version__, docs_url=None, redoc_url=None, lifespan=server.lifespan)
    app.state.server = server
    app.add_middleware(Gate, settings=server.settings, state=server.state, answered=server.answered)
    app.add_exception_handler(HTTPException, _http_failure)
    app.add_exception_handler(FovealError, _failure)
    app.add_exception_handler(Failure, _failure)
    _add_generation(app, server)
    _add_state(app, server)
    return app


async def _failure(request: Request, error: Exception) -> Response:
    failure = failure_of(error)
    record_of(request.scope).error = failure.code
    return failure.response


async def _http_failure(request: Request, error: Exception) -> Response:
    """Of the routes: paths and methods that there are not."""
    assert isinstance(error, HTTPException)
    said = {404: "there is nothing at this path", 405: "this path takes other methods"}.get(error.status_code, error.detail)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
    return await _failure(request, Failure(error.status_code, said, code=code, headers=error.headers or {}))


def _add_generation(app: FastAPI, server: Server) -> None:
    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await server.complete(request)

    @app.get("/v1/models")
    async def models() -> Response:
        return _json(ModelList([ModelEntry(one.name, one.created) for one in server.served.values()]))

    @app.get("/v1/models/{model:path}")
    async def model(model: str) -> Response:
        found = server.model(model)
        return _json(ModelEntry(found.name, found.created))


def _add_state(app: FastAPI, server: Server) -> None:
    @app.get("/health")
    async def health() -> Response:
        is_alive = server.state.is_draining or all(one.service.is_alive for one in server.served.values())
        return _json({"status": "alive" if is_alive else "failed"}, 200 if is_alive else 503)

    @app.get("/ready")
    async def ready() -> Response:
        return _json({"status": "ready"} if server.is_ready else {"status": "not ready"}, 200 if server.is_ready else 503)

    @app.get("/status")
    async def status() -> Response:
        return _json({"models": [status_of(one) for one in server.served.values()]})

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(server.registry), media_type=CONTENT_TYPE_LATEST)


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
