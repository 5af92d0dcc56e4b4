"""From what a request wants to the streams that bring it. All of it may take time, so a thread does it, not the event loop."""

from __future__ import annotations

import asyncio

from ..errors import InputError
from ..runtime.service.stream import AsyncStream
from .failures import Failure, invalid
from .served import Served
from .settings import ServeSettings
from .source import Source
from .wanted import Wanted


def open_source(
    served: Served, wanted: Wanted, session_key: str | None, limits: ServeSettings, loop: asyncio.AbstractEventLoop
) -> Source:
    """Submit all prompts, or none.

    Args:
        served: whom to ask.
        wanted: what.
        session_key: what the session is called inside.
        limits: of the server.
        loop: whose tasks read the events.

    Raises:
        Failure, FovealError: what can't be followed, or not now.
    """
    if wanted.texts > (most := served.service.slots + served.service.queue):
        raise invalid(f"the request asks for {wanted.texts} texts, expected at most {most}, as many as the server holds", "n")
    if not served.is_text and wanted.settings.get("stop"):
        raise invalid("stop strings are of text, and this model has ids only; give stop_token_ids", "stop")
    prompts = [_ids(served, prompt, limits) for prompt in wanted.prompts]
    streams: list[AsyncStream] = []
    try:
        for ids in prompts:
            streams.append(
                served.service.submit_to(
                    loop,
                    ids,
                    n=wanted.n,
                    session=session_key,
                    position=wanted.position,
                    as_text=served.is_text,
                    **wanted.settings,
                )
            )
    except BaseException as error:
        for stream in streams:
            stream.cancel()
        if session_key is not None and wanted.session is not None:
            raise _renamed(error, session_key, wanted.session) from None
        raise
    return Source(streams, prompts)


def _ids(served: Served, prompt: str | list[int], limits: ServeSettings) -> list[int]:
    if isinstance(prompt, str) and not served.is_text:
        raise invalid(f'the model "{served.name}" has no tokenizer, so it takes ids only; give the prompt as a list', "prompt")
    try:
        ids = served.model.prompt_ids(prompt) if len(prompt) else []
    except InputError as error:
        raise invalid(str(error), "prompt") from None
    if limits.max_prompt is not None and len(ids) > limits.max_prompt:
        raise invalid(
            f"the prompt has {len(ids)} tokens, the server takes {limits.max_prompt}; shorten it",
            "prompt",
            "context_length_exceeded",
        )
    return ids


def _renamed(error: BaseException, key: str, name: str) -> BaseException:
    """The same, of the session as its client calls it."""
    if isinstance(error, Failure) or not error.args:
        return error
    error.args = (str(error).replace(key, name), *error.args[1:])
    return error
