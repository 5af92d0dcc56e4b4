"""The application: routes over the models that are served, for uvicorn, Ray Serve or whatever else runs ASGI."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from .. import __version__
from ..errors import FovealError
from .failures import Failure, failure_of, invalid
from .gate import Gate, open_paths, record_of
from .openapi import SECURITY, parameters, schemas, secure
from .page import add_page
from .routes import CHATS, add_generation, add_models, add_sessions, add_state
from .served import Served
from .server import Server
from .settings import ServeSettings


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
    app.add_exception_handler(RequestValidationError, _wrong_path)
    for add in (add_generation, add_models, add_sessions, add_state):
        add(app, server)
    if server.settings.page:
        add_page(app)
    app.openapi = functools.partial(_described, app)  # type: ignore[method-assign]
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
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods_of(request))
    return await _failure(request, Failure(error.status_code, said, code=code, headers=headers))


def _methods_of(request: Request) -> list[str]:
    """Of all routes at a path; the router itself names those of the first alone."""
    found = (route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE)
    return sorted({method for route in found for method in getattr(route, "methods", None) or ()})


async def _wrong_path(request: Request, error: Exception) -> Response:
    """A path or a query that FastAPI itself refuses."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return await _failure(request, invalid(f"{first['loc'][-1]}: {first['msg']}", str(first["loc"][-1]), "invalid_type"))


def _described(app: FastAPI) -> dict[str, Any]:
    """The description of all routes, made once: with the names of the models, and without what none of them can do."""
    if app.openapi_schema is None:
        server: Server = app.state.server
        models, chats = list(server.served), [name for name, one in server.served.items() if one.takes_chats]
        found = get_openapi(title=app.title, version=app.version, routes=app.routes)
        found["components"] = {"schemas": schemas(models, chats)}
        if not chats:
            del found["paths"][CHATS]
        known, is_open = parameters(models), open_paths(server.settings)
        if server.settings.tokens:
            found["components"]["securitySchemes"] = SECURITY
        for path, operations in found["paths"].items():
            for operation in operations.values():
                operation["responses"].pop("422", None)  # what FastAPI would say; it is a 400 here
                for parameter in operation.get("parameters", ()):
                    parameter["schema"] = known[parameter["name"]]
                if server.settings.tokens and path not in is_open:
                    secure(operation)
        app.openapi_schema = found
    return app.openapi_schema
