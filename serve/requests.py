"""What clients send, as OpenAI's API writes it, with foveal's own settings beside."""

from __future__ import annotations

import re
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from .failures import Failure, invalid

Body = TypeVar("Body", bound=Struct)


class StreamOptions(Struct, forbid_unknown_fields=True):
    """Of a streamed answer: `include_usage` adds a last chunk that counts tokens."""

    include_usage: bool | None = None


class TextFormat(Struct, forbid_unknown_fields=True, tag_field="type", tag="text"):
    """Any text."""


class JsonFormat(Struct, forbid_unknown_fields=True, tag_field="type", tag="json_object"):
    """A JSON object."""


class NamedSchema(Struct, forbid_unknown_fields=True):
    """A JSON schema with a name, which changes nothing; the schema is always followed strictly."""

    schema: dict[str, Any]
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class JsonSchemaFormat(Struct, forbid_unknown_fields=True, tag_field="type", tag="json_schema"):
    """JSON that a schema describes."""

    json_schema: NamedSchema


class Generation(Struct, kw_only=True, forbid_unknown_fields=True):
    """What completions and chats share. Null is as if a field was left out.

    Of OpenAI's: `user`, `metadata`, `safety_identifier`, `prompt_cache_key`, `store` (false alone) and `service_tier` change
    nothing here. foveal's own: `top_k` to `foveal`. `draft` is `"ngrams"`, or false for none; left out, it is as the server
    has it.
    """

    model: str
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    store: bool | None = None
    service_tier: str | None = None
    response_format: TextFormat | JsonFormat | JsonSchemaFormat | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    stop_token_ids: list[int] | None = None
    end: int | str | list[int | str] | None = None
    end_rules: str | list[str] | None = None
    json_schema: dict[str, Any] | str | bool | None = None
    regex: str | None = None
    grammar: str | None = None
    max_seconds: float | None = None
    session: str | None = None
    position: int | None = None
    draft: str | bool | None = None
    foveal: bool | None = None


WHOLE = (
    *("n", "seed", "top_k", "min_tokens", "position", "max_tokens", "logprobs", "best_of", "max_completion_tokens"),
    *("top_logprobs", "stop_token_ids", "end"),
)
"""Fields of whole numbers."""


class CompletionRequest(Generation, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/completions`."""

    prompt: str | list[Any]
    max_tokens: int | None = None
    logprobs: int | None = None
    echo: bool | None = None
    best_of: int | None = None
    suffix: str | None = None


class TextPart(Struct, forbid_unknown_fields=True):
    """A part of a message."""

    type: Literal["text"]  # a tag would not be required, where there is one kind alone
    text: str


class Message(Struct, forbid_unknown_fields=True):
    """What someone said in a chat."""

    role: str
    content: str | list[TextPart]
    name: str | None = None


class ChatRequest(Generation, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/chat/completions`."""

    messages: list[Message]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


_PLACE = re.compile(r" - at `\$\.?([^`]*)`$")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_MISSING = re.compile(r"missing required field `([^`]*)`")


def parse(body: bytes, kind: type[Body]) -> Body:
    """A request's body.

    Raises:
        Failure: 400 for what is no JSON, has unknown fields, or fields of other types.
    """
    try:
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.ValidationError as first:
            return msgspec.convert(_with_ints(_untyped(body, first)), kind)
    except msgspec.ValidationError as error:
        raise _misfit(str(error)) from None
    except msgspec.DecodeError as error:
        raise invalid(f"the body is no JSON: {error}", code="invalid_json") from None
    except UnicodeDecodeError as error:
        raise invalid(f"the body is not UTF-8: {error.reason} at a text's byte {error.start}", code="invalid_json") from None
    except RecursionError:
        raise invalid("the body nests too deep; flatten it", code="invalid_json") from None


def _untyped(body: bytes, misfit: msgspec.ValidationError) -> Any:
    """What it says, of whatever types; raises the misfit for numbers that no type holds, as that says where they are."""
    try:
        return msgspec.json.decode(body)
    except msgspec.ValidationError:
        raise misfit from None


def _with_ints(given: Any) -> Any:
    """JSON has one kind of number: 5.0 is a whole one, and becomes an int."""
    if not isinstance(given, dict):
        return given
    return {name: _whole(value) if name in WHOLE else value for name, value in given.items()}


def _whole(value: Any) -> Any:
    if isinstance(value, list):
        return [_whole(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _misfit(said: str) -> Failure:
    place = _PLACE.search(said)
    param = place.group(1) if place else None
    if unknown := _UNKNOWN.search(said):
        name = unknown.group(1) if not param else f"{param}.{unknown.group(1)}"
        return invalid(f"there is no field {name}, or not here; leave it out", name, "unknown_field")
    if missing := _MISSING.search(said):
        name = missing.group(1) if not param else f"{param}.{missing.group(1)}"
        return invalid(f"the field {name} is missing", name, "missing_field")
    return invalid(f"{param or 'the body'}: {said[: place.start()] if place else said}", param, "invalid_type")
