"""What `/openapi.json` says of bodies: the schemas of what is parsed and of what is answered."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from .answers import ModelEntry, ModelList, SessionEntry
from .failures import ErrorAnswer
from .requests import ChatRequest, CompletionRequest
from .sessions import PATTERN

_REFERENCE = "#/components/schemas/{name}"
_OBJECT: dict[str, Any] = {"type": "object"}
_MORE: dict[str, Any] = {"Answer": _OBJECT, "State": _OBJECT, "Status": _OBJECT}
"""Of answers that OpenAI's own reference describes, or that say more with every version."""
_SCHEME = "token"
SECURITY = {_SCHEME: {"type": "http", "scheme": "bearer"}}
"""How a request bears a token."""
_EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
_TEXT, _IDS = {"type": "string", "minLength": 1}, {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_PROMPT = {"anyOf": [_TEXT, _IDS, {"type": "array", "items": _TEXT, "minItems": 1}, {"type": "array", "items": _IDS}]}
_RANGES: dict[str, dict[str, Any]] = {
    "temperature": {"minimum": 0},
    "top_p": {"exclusiveMinimum": 0, "maximum": 1},
    "top_k": {"minimum": 0},
    "min_p": {"minimum": 0, "maximum": 1},
    "repetition_penalty": {"exclusiveMinimum": 0},
    "n": {"minimum": 1},
    "max_tokens": {"minimum": 0},
    "max_completion_tokens": {"minimum": 1},
    "min_tokens": {"minimum": 0},
    "max_seconds": {"exclusiveMinimum": 0},
    "position": {"minimum": 0},
    "top_logprobs": {"minimum": 0, "maximum": 20},
    "session": {"pattern": PATTERN},
}
_STATUSES = {
    "400": "A request that can't be followed",
    "401": "No token, or one that is not known",
    "404": "There is none",
    "408": "The body did not arrive in time",
    "409": "The session is busy, or stands elsewhere",
    "413": "The body is too large",
    "415": "The body is not JSON",
    "429": "No room now; Retry-After says when to ask again",
    "500": "The server failed",
    "501": "Something that the request needs is not installed",
    "503": "The server is about to end, or its store failed",
}


def schemas(models: Sequence[str], chats: Sequence[str]) -> dict[str, Any]:
    """All that bodies refer to, of a server of these models, some of which take chats."""
    kinds = (CompletionRequest, ChatRequest, ModelEntry, ModelList, SessionEntry, ErrorAnswer)
    _, found = msgspec.json.schema_components(kinds, ref_template=_REFERENCE)
    for name, asked in (("CompletionRequest", models), ("ChatRequest", chats)):
        fields = found[name]["properties"]
        fields["model"]["enum"] = list(asked)
        fields["stop"]["anyOf"] = [_TEXT, {"type": "array", "items": _TEXT, "maxItems": 16}, {"type": "null"}]
        for field, limits in _RANGES.items():
            for kind in fields.get(field, {}).get("anyOf", ()):
                if kind.get("type") != "null":
                    kind.update(limits)
    found["CompletionRequest"]["properties"]["prompt"] = _PROMPT
    found["CompletionRequest"]["properties"]["logprobs"]["anyOf"][0] |= {"minimum": 0, "maximum": 5}
    found["ChatRequest"]["properties"]["messages"]["minItems"] = 1
    return {**found, **_MORE}


def parameters(models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Schemas of what stands in paths and queries, by its name, of a server of so many models."""
    return {"session": {"type": "string", "pattern": PATTERN}, "model": {"type": "string", "enum": list(models)}}


def secure(operation: dict[str, Any]) -> None:
    """Say of a route that it takes a token."""
    operation["security"] = [{_SCHEME: []}]
    operation["responses"] |= {str(status): said for status, said in _failures("401").items()}


def body_of(kind: type[Struct]) -> dict[str, Any]:
    """Of a request."""
    schema = {"$ref": _REFERENCE.format(name=kind.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def answers_of(name: str, failures: str, streams: bool = False) -> dict[int | str, dict[str, Any]]:
    """Of a route: what it answers, and its errors by their statuses, between spaces."""
    content: dict[str, Any] = {"application/json": {"schema": {"$ref": _REFERENCE.format(name=name)}}}
    if streams:
        content["text/event-stream"] = {"itemSchema": _EVENT}
    found: dict[int | str, dict[str, Any]] = {200: {"description": re.sub("(?!^)([A-Z])", r" \1", name), "content": content}}
    return found | _failures(failures)


def _failures(statuses: str) -> dict[int | str, dict[str, Any]]:
    error = {"application/json": {"schema": {"$ref": _REFERENCE.format(name="ErrorAnswer")}}}
    return {int(one): {"description": _STATUSES[one], "content": error} for one in statuses.split()}
