"""Errors as a client is told of them: an HTTP status, and a body as OpenAI writes it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.responses import Response

from ..errors import (
    BackendUnavailable,
    CapacityError,
    ConfigError,
    FovealError,
    InputError,
    QueueFullError,
    ServiceClosedError,
    SessionBusyError,
    SessionLostError,
    StorageError,
)
from ..runtime.guides.constraint import KINDS

_log = logging.getLogger("foveal.serve")
INVALID, SERVER = "invalid_request_error", "server_error"
DRAIN_RETRY_SECONDS = 5
_MOST_SAID = 600
"""Characters of a message: what a client sent may be in it, and be of any length."""


@dataclass(eq=False)
class Failure(Exception):
    """What a client is told of an error.

    Attributes:
        status: of HTTP.
        message: what happened, and what to do.
        type, param, code: as in OpenAI's errors: what kind of error, the field that is wrong, a word for programs.
        headers: of the answer.
        more: what the body's error says beside.
    """

    status: int
    message: str
    type: str = INVALID
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        """As JSON."""
        said = self.message if len(self.message) <= _MOST_SAID else f"{self.message[:_MOST_SAID]} [...]"
        error = {"message": said, "type": self.type, "param": self.param, "code": self.code, **self.more}
        return msgspec.json.encode({"error": error})

    @property
    def response(self) -> Response:
        """The answer."""
        return Response(self.body, self.status, self.headers, "application/json")


class ErrorSaid(msgspec.Struct):
    """What a client is told."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(msgspec.Struct):
    """The body of any answer that is an error."""

    error: ErrorSaid


def invalid(message: str, param: str | None = None, code: str | None = None) -> Failure:
    """A request that can't be followed."""
    return Failure(400, message, param=param, code=code)


def failure_of(error: BaseException) -> Failure:
    """What a client is told of any error; of those that nobody foresaw only that there was one."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, FovealError):
        return _of_foveal(error)
    _log.error("a request failed", exc_info=error)
    return Failure(500, "the server failed; its log says why", SERVER, code="internal_error")


def _of_foveal(error: FovealError) -> Failure:
    said = str(error)
    match error:
        case CapacityError():
            return invalid(said, "prompt", "context_length_exceeded")
        case InputError():
            return invalid(said, _field_of(said))
        case QueueFullError():
            after = {"Retry-After": str(math.ceil(error.retry_after))}
            return Failure(429, said, "rate_limit_error", code="rate_limit_exceeded", headers=after)
        case SessionBusyError():
            return Failure(409, said, "conflict_error", "session", "session_busy", {"Retry-After": "1"})
        case SessionLostError():
            where = {"position": error.position}
            return Failure(409, said, "conflict_error", "position", "session_lost", {"x-should-retry": "false"}, where)
        case ServiceClosedError():
            return closed(said)
        case BackendUnavailable():
            return Failure(501, said, SERVER, code="not_installed")
        case StorageError():
            _log.error("a store failed: %s", error)
            return Failure(503, "the store of sessions failed; the server's log says why", SERVER, code="storage_failed")
        case ConfigError():
            return invalid(said, _field_of(said))
    _log.error("a request failed: %s", error)
    return Failure(500, "the engines failed; the server's log says why", SERVER, code="engines_failed")


def closed(message: str) -> Failure:
    """Nothing is taken any more."""
    return Failure(503, message, SERVER, code="shutting_down", headers={"Retry-After": str(DRAIN_RETRY_SECONDS)})


_WORDS = {
    "the end token": "end",
    "the tokenizer has no token": "end",
    "the model has no end rule": "end_rules",
    "the JSON schema": "json_schema",
    "got position": "position",
    "the stop string": "stop",
    "an id of logit_bias": "logit_bias",
}
"""How messages on some settings begin."""
_NAMES = {"max_new_tokens": "max_tokens", "prompt_logprobs": "logprobs"}


def _field_of(message: str) -> str | None:
    """Messages on settings begin with their name, or with other words for it."""
    for words, name in _WORDS.items():
        if message.startswith(words):
            return name
    first = message.removeprefix("the ").split(" ", 1)[0]
    found = _NAMES.get(first, first)
    return found if found in _FIELDS else None


_FIELDS = frozenset(
    (
        *("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty"),
        *("logit_bias", "logprobs", "seed", "max_tokens", "min_tokens", "max_seconds", "stop", "n", "position", "session"),
        *("prompt", *KINDS),
    )
)
