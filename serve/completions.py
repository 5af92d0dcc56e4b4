"""`POST /v1/completions`: what it wants."""

from __future__ import annotations

from typing import Any

from .failures import invalid
from .requests import CompletionRequest
from .settings import ServeSettings
from .wanted import Wanted, count_of, output_tokens, settings_of

DEFAULT_TOKENS = 16
MOST_LOGPROBS = 5


def wanted_completion(request: CompletionRequest, limits: ServeSettings) -> Wanted:
    """What a request asks for.

    Raises:
        Failure: 400 for what can't be followed.
    """
    prompts = _prompts(request.prompt, limits)
    n = count_of(request, len(prompts), limits)
    if request.best_of is not None and request.best_of != n:
        raise invalid(
            f"best_of is {request.best_of}, expected n, {n}: all texts are given back", "best_of", "unsupported_value"
        )
    if request.suffix:
        raise invalid("these models only continue texts; leave suffix out", "suffix", "unsupported_value")
    if request.logprobs is not None and not 0 <= request.logprobs <= MOST_LOGPROBS:
        raise invalid(f"logprobs is {request.logprobs}, expected 0 to {MOST_LOGPROBS}", "logprobs")
    scores_only = request.max_tokens == 0
    echo = bool(request.echo)
    if scores_only and not echo:
        raise invalid("max_tokens is 0, which takes echo: the prompt is given back, and nothing else", "max_tokens")
    if scores_only and request.session is not None:
        raise invalid("max_tokens is 0 with a session, which would not stay as it is; leave the session out", "session")
    tokens = output_tokens("max_tokens", request.max_tokens, DEFAULT_TOKENS, 0, limits)
    settings = settings_of(request, max(tokens, 1), limits)
    if request.logprobs is not None:
        settings["logprobs"] = request.logprobs
        if echo:
            settings["prompt_logprobs"] = request.logprobs
    return Wanted(
        prompts=prompts,
        n=n,
        settings=settings,
        session=request.session,
        position=request.position,
        echo=echo,
        scores_only=scores_only,
        logprobs=request.logprobs,
        streams=bool(request.stream),
        counts=bool(request.stream_options and request.stream_options.include_usage),
        reports=bool(request.foveal),
    )


def _prompts(given: str | list[Any], limits: ServeSettings) -> list[str | list[int]]:
    """A text, texts, ids, or lists of ids."""
    if isinstance(given, str):
        return [given]
    if _are_ids(given):
        return [_ids(given)]
    if len(given) > limits.max_prompts:
        raise invalid(f"got {len(given)} prompts, expected at most {limits.max_prompts}", "prompt")
    if all(isinstance(one, str) for one in given):
        return given
    if all(isinstance(one, list) and _are_ids(one) for one in given):
        return [_ids(one) for one in given]
    raise invalid("the prompt is a text, a list of texts, a list of ids or a list of such lists; got a mixture", "prompt")


def _are_ids(given: list[Any]) -> bool:
    """Whether all are whole numbers, as are those of an empty list."""
    return all(type(one) is int or (type(one) is float and one.is_integer()) for one in given)


def _ids(given: list[Any]) -> list[int]:
    return [int(one) for one in given]
