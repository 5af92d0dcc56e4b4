"""`POST /v1/chat/completions`: what it wants."""

from __future__ import annotations

from .failures import invalid
from .requests import ChatRequest
from .served import Served
from .settings import ServeSettings
from .wanted import Wanted, count_of, output_tokens, settings_of

MOST_LOGPROBS = 20


def wanted_chat(request: ChatRequest, served: Served, limits: ServeSettings) -> Wanted:
    """What a request asks for; without `max_tokens`, as many as there is room for.

    Raises:
        Failure: 400 for what can't be followed, or a model that has no template.
    """
    if served.template is None or not served.is_text:
        raise invalid(
            f'the model "{served.name}" has no chat template, so it only continues texts: ask /v1/completions, or start the '
            "server with --chat-template FILE",
            "model",
            "no_chat_template",
        )
    if not request.messages:
        raise invalid("there are no messages; send at least one", "messages")
    given, name = request.max_completion_tokens, "max_completion_tokens"
    if request.max_tokens is not None:
        if given is not None and given != request.max_tokens:
            raise invalid("max_tokens and max_completion_tokens differ; give one of them", "max_tokens")
        given, name = request.max_tokens, "max_tokens"
    tokens = output_tokens(name, given, served.service.capacity, 1, limits)
    settings = settings_of(request, tokens, limits)
    settings["end"] = [*settings.get("end", ()), *served.template.ends]
    logprobs = _logprobs(request)
    if logprobs is not None:
        settings["logprobs"] = logprobs
    return Wanted(
        prompts=[served.template.prompt(request.messages)],
        n=count_of(request, 1, limits),
        settings=settings,
        session=request.session,
        position=request.position,
        logprobs=logprobs,
        streams=bool(request.stream),
        counts=bool(request.stream_options and request.stream_options.include_usage),
        reports=bool(request.foveal),
    )


def _logprobs(request: ChatRequest) -> int | None:
    count = request.top_logprobs
    if not request.logprobs:
        if count:
            raise invalid("top_logprobs takes logprobs; leave it out, or send logprobs: true", "top_logprobs")
        return None
    count = count or 0
    if not 0 <= count <= MOST_LOGPROBS:
        raise invalid(f"top_logprobs is {count}, expected 0 to {MOST_LOGPROBS}", "top_logprobs")
    return count
