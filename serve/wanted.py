"""What a request asks for, checked, in the words of the runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..runtime.given import shown
from ..runtime.guides.constraint import KINDS
from ..runtime.ids import written_id
from ..runtime.speculation.opening import NGRAMS
from .failures import invalid
from .requests import Generation, JsonFormat, JsonSchemaFormat
from .settings import ServeSettings

PLAIN = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "min_tokens",
    "end_rules",
    *KINDS,
)
"""Settings that have the same name in the runtime."""
_SEEDS = 1 << 64


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to generate, and how to answer.

    Attributes:
        prompts: texts, or ids.
        n: texts of each.
        settings: as of `Service.submit`.
        session, position: what it continues.
        echo: whether the prompt is given back before what comes.
        scores_only: whether only the prompt's log probabilities are wanted, and no text.
        logprobs: how many of the likeliest tokens are given with each; None: nothing.
        streams, counts: whether the answer comes in pieces, and whether a last one counts tokens.
        reports: whether to say of each token how it came.
    """

    prompts: Sequence[str | list[int]]
    n: int
    settings: dict[str, Any]
    session: str | None
    position: int | None
    echo: bool = False
    scores_only: bool = False
    logprobs: int | None = None
    streams: bool
    counts: bool
    reports: bool

    @property
    def texts(self) -> int:
        """Of all prompts."""
        return len(self.prompts) * self.n


def settings_of(request: Generation, max_tokens: int, limits: ServeSettings) -> dict[str, Any]:
    """Of what completions and chats share.

    Raises:
        Failure: 400 for what can't be followed.
    """
    check_unused(request)
    found: dict[str, Any] = {name: value for name in PLAIN if (value := getattr(request, name)) is not None}
    found["max_new_tokens"] = max_tokens
    found["max_seconds"] = min(limits.timeout, limits.timeout if request.max_seconds is None else request.max_seconds)
    if request.seed is not None:
        if not -_SEEDS <= request.seed < _SEEDS:
            raise invalid("seed has more than 64 bits; give a smaller one", "seed")
        found["seed"] = request.seed % _SEEDS
    if request.logit_bias:
        found["logit_bias"] = {_bias_id(token): bias for token, bias in request.logit_bias.items()}
    if request.stop is not None:
        found["stop"] = _stops(request.stop, limits)
    if request.draft is not None:
        found["draft"] = _draft(request.draft, limits)
    if ends := _ends(request):
        found["end"] = ends
    constraint = _format_schema(request)
    if constraint is not None:
        if any(kind in found for kind in KINDS):
            raise invalid("response_format and another constraint; give one of them", "response_format")
        found["json_schema"] = constraint
    return found


def check_unused(request: Generation) -> None:
    """See that fields which change nothing here ask for nothing."""
    if request.store:
        raise invalid("store is true, but answers are not kept; leave it out", "store", "unsupported_value")
    if request.service_tier not in (None, "auto", "default"):
        raise invalid('there are no service tiers; leave service_tier out, or "auto"', "service_tier", "unsupported_value")
    if request.stream_options is not None and not request.stream:
        raise invalid("stream_options takes stream; leave it out, or stream", "stream_options")


def count_of(request: Generation, prompts: int, limits: ServeSettings) -> int:
    """Texts of each prompt.

    Raises:
        Failure: 400 for none, or more than the server's limit.
    """
    n = 1 if request.n is None else request.n
    if n < 1 or n * prompts > limits.max_texts:
        raise invalid(f"n is {n} for {prompts} prompts, expected 1 to {limits.max_texts} texts of a request", "n")
    if prompts > 1 and request.session is not None:
        raise invalid(f"got {prompts} prompts for one session; send one after the other", "prompt")
    return n


def output_tokens(name: str, given: int | None, default: int, least: int, limits: ServeSettings) -> int:
    """`max_tokens`, or the default where none is given, within the server's limit.

    Raises:
        Failure: 400 for one that is not.
    """
    most = limits.max_output
    if given is None:
        return default if most is None else min(default, most)
    if given < least or (most is not None and given > most):
        expected = f"at least {least}" if most is None else f"{least} to {most}"
        raise invalid(f"{name} is {given}, expected {expected}", name)
    return given


def _draft(given: str | bool, limits: ServeSettings) -> str | None:
    """A request names no model: what the server opens is its own matter."""
    if given is False:
        return None
    if given != NGRAMS:
        raise invalid(
            f'draft is {shown(given)}, expected "{NGRAMS}" or false; drafts by a model are the server\'s own (--draft)', "draft"
        )
    if not limits.drafts:
        raise invalid("this server makes no drafts for requests; leave draft out", "draft", "unsupported_value")
    return NGRAMS


def _bias_id(token: str) -> int:
    if (found := written_id(token)) is None:
        raise invalid(f'logit_bias has the key "{token[:20]}", expected ids, such as "17"', "logit_bias")
    return found


def _stops(given: str | list[str], limits: ServeSettings) -> list[str]:
    stops = [given] if isinstance(given, str) else given
    if len(stops) > limits.max_stops:
        raise invalid(f"got {len(stops)} stop strings, expected at most {limits.max_stops}", "stop")
    if any(len(stop) > limits.max_stop_characters for stop in stops):
        raise invalid(f"a stop string is longer than {limits.max_stop_characters} characters; shorten it", "stop")
    return stops


def _ends(request: Generation) -> list[int | str]:
    found: list[int | str] = []
    if request.end is not None:
        found += request.end if isinstance(request.end, list) else [request.end]
    found += request.stop_token_ids or []
    if len(found) > 1024:
        raise invalid(f"got {len(found)} end tokens, expected at most 1024", "end")
    return found


def _format_schema(request: Generation) -> dict[str, Any] | None:
    match request.response_format:
        case JsonFormat():
            return {"type": "object"}
        case JsonSchemaFormat(json_schema=named):
            return named.schema
    return None
