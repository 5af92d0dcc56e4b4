"""What the routes share: the models, their limits, and how a request becomes an answer."""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from starlette.responses import Response

from ..errors import SessionBusyError
from .affinity import check_affinity, check_expectation
from .answering import Answering
from .answers import SessionEntry
from .bodies import read_body
from .chats import wanted_chat
from .completions import wanted_completion
from .disconnects import Disconnects
from .event_stream import EventStream
from .failures import Failure, invalid
from .forms import ChatForm, CompletionForm, Form
from .gate import State, record_of
from .metrics import Answered, registry_of
from .opening import open_source
from .records import Record
from .requests import ChatRequest, CompletionRequest, parse
from .served import Served
from .sessions import key_of
from .settings import ServeSettings
from .source import Source
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

    @property
    def is_alive(self) -> bool:
        """Whether the engines work, or are to end."""
        return self.state.is_draining or all(one.service.is_alive for one in self.served.values())

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

    async def chat(self, request: Request) -> Response:
        """`POST /v1/chat/completions`."""
        body = await read_body(request, self.settings.max_body, self.settings.body_timeout)
        asked = parse(body, ChatRequest)
        served = self.model(asked.model)
        wanted = wanted_chat(asked, served, self.settings)
        return await self.answer(request, served, wanted, ChatForm(self._texts[served.name]))

    def check_affinity(self, request: Request, session: str) -> None:
        """See that a request was routed by its session.

        Raises:
            Failure: 400 if not.
        """
        check_affinity(self.settings.session_header, request.headers, session)

    async def session(self, record: Record, session: str, model: str | None) -> SessionEntry:
        """Where a session stands.

        Raises:
            Failure: 404 if it is not there.
        """
        served, key = self._kept(record, session, model)
        position = await asyncio.to_thread(served.service.sessions.position, key)
        if position is None:
            raise _no_session(session)
        return SessionEntry(session, served.name, position)

    async def forget(self, record: Record, session: str, model: str | None) -> SessionEntry:
        """Keep a session no longer.

        Raises:
            Failure: 404 if it is not there.
            SessionBusyError: a request is at it.
        """
        served, key = self._kept(record, session, model)
        try:
            was_there = await asyncio.to_thread(served.service.sessions.forget, key)
        except SessionBusyError as error:
            raise SessionBusyError(str(error).replace(key, session)) from None
        if not was_there:
            raise _no_session(session)
        return SessionEntry(session, served.name, None, deleted=True)

    def _kept(self, record: Record, session: str, model: str | None) -> tuple[Served, str]:
        """Whose session it is, and its key."""
        if model is None and len(self.served) > 1:
            raise invalid(f"there are several models; say whose session it is, as ?model={next(iter(self.served))}", "model")
        served = next(iter(self.served.values())) if model is None else self.model(model)
        if served.service.sessions.store is None:
            raise invalid("this server keeps no sessions", "session")
        record.model = served.name
        return served, key_of(record.owner, session)

    async def answer(self, request: Request, served: Served, wanted: Wanted, form: Form) -> Response:
        """Generate; errors before the first token are a status, also of streams."""
        record, found = record_of(request.scope), list[Source]()
        if wanted.session is not None:
            self.check_affinity(request, wanted.session)
            check_expectation(self.settings.session_header, wanted.position)
        key = None if wanted.session is None else key_of(record.owner, wanted.session)
        record.model = served.name
        record.session = None if key is None else hashlib.sha256(key.encode()).hexdigest()[:12]
        watch = Disconnects(request.receive, lambda: _give_up(found))

        def end() -> None:
            watch.close()
            if watch.is_gone:
                record.status = 499

        try:
            source = await self._open(functools.partial(open_source, served, wanted, key, self.settings))
            found.append(source)
            if watch.is_gone:
                source.cancel()
            first = await source.next()
            answering = Answering(served, wanted, form, source, record)
            if wanted.streams:
                return EventStream(answering, first, self.settings.stall_timeout, end)
            body = await answering.whole(first)
        except BaseException:
            end()
            _give_up(found)
            raise
        end()
        return Response(body, media_type="application/json")

    async def _open(self, opening: Callable[[asyncio.AbstractEventLoop], Source]) -> Source:
        """In a thread; if nobody waits for it any more when it is there, it is given up."""
        loop = asyncio.get_running_loop()
        opened = loop.run_in_executor(self._pool, opening, loop)
        try:
            return await asyncio.shield(opened)
        except asyncio.CancelledError:
            opened.add_done_callback(_give_up_late)
            raise


def _give_up_late(opened: asyncio.Future[Source]) -> None:
    if not opened.cancelled() and opened.exception() is None:
        opened.result().cancel()


def _no_session(session: str) -> Failure:
    return Failure(404, f'there is no session "{session}", or no longer', param="session", code="session_not_found")


def _give_up(sources: list[Source]) -> None:
    for source in sources:
        source.cancel()
