"""Routes, and what is said of them in `/openapi.json`."""

from __future__ import annotations

import msgspec
from fastapi import FastAPI, Request
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from .answers import ModelEntry, ModelList
from .gate import record_of
from .openapi import answers_of, body_of
from .requests import ChatRequest, CompletionRequest
from .server import Server
from .status import status_of

CHATS = "/v1/chat/completions"


def add_generation(app: FastAPI, server: Server) -> None:
    """What generates."""

    @app.post(
        "/v1/completions",
        summary="Continue texts or ids",
        openapi_extra=body_of(CompletionRequest),
        responses=answers_of("Answer", "400 401 404 408 409 413 415 429 500 501 503", streams=True),
    )
    async def completions(request: Request) -> Response:
        return await server.complete(request)

    @app.post(
        CHATS,
        summary="Answer a chat",
        openapi_extra=body_of(ChatRequest),
        responses=answers_of("Answer", "400 401 404 408 409 413 415 429 500 501 503", streams=True),
    )
    async def chat_completions(request: Request) -> Response:
        return await server.chat(request)


def add_models(app: FastAPI, server: Server) -> None:
    """Which models there are."""

    @app.get("/v1/models", summary="All models", responses=answers_of("ModelList", "401"))
    async def models() -> Response:
        return _json(ModelList([ModelEntry(one.name, one.created) for one in server.served.values()]))

    @app.get("/v1/models/{model:path}", summary="One model", responses=answers_of("ModelEntry", "401 404"))
    async def model(model: str) -> Response:
        found = server.model(model)
        return _json(ModelEntry(found.name, found.created))


def add_sessions(app: FastAPI, server: Server) -> None:
    """Sequences that are kept between requests; a client has its own alone."""

    @app.get(
        "/v1/sessions/{session}", summary="Where a session stands", responses=answers_of("SessionEntry", "400 401 404 500 503")
    )
    async def session(request: Request, session: str, model: str | None = None) -> Response:
        server.check_affinity(request, session)
        return _json(await server.session(record_of(request.scope), session, model))

    @app.delete(
        "/v1/sessions/{session}",
        summary="Keep a session no longer",
        responses=answers_of("SessionEntry", "400 401 404 409 500 503"),
    )
    async def forget(request: Request, session: str, model: str | None = None) -> Response:
        server.check_affinity(request, session)
        return _json(await server.forget(record_of(request.scope), session, model))


def add_state(app: FastAPI, server: Server) -> None:
    """How the server is."""

    @app.get("/health", summary="Whether it works", responses=answers_of("State", "503"))
    async def health() -> Response:
        return _json({"status": "alive" if server.is_alive else "failed"}, 200 if server.is_alive else 503)

    @app.get("/ready", summary="Whether it takes requests", responses=answers_of("State", "503"))
    async def ready() -> Response:
        return _json({"status": "ready"} if server.is_ready else {"status": "not ready"}, 200 if server.is_ready else 503)

    @app.get("/status", summary="What the models have to do", responses=answers_of("Status", "401"))
    async def status() -> Response:
        return _json(
            {
                "models": [status_of(one) for one in server.served.values()],
                "session_header": server.settings.session_header,  # null: requests of sessions need none
            }
        )

    @app.get("/metrics", summary="For Prometheus", responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        return Response(generate_latest(server.registry), media_type=CONTENT_TYPE_LATEST)


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
