"""Clients that go, or that do not read, keep no slot."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from serving import Site, opened_site

from foveal.runtime.model import Model
from foveal.serve.settings import ServeSettings


class Connection:
    """A client of an ASGI application that can go at any time, or not read."""

    def __init__(self, **fields: Any) -> None:
        self.body = json.dumps({"model": "m", "prompt": "a", "max_tokens": 1000, **fields}).encode()
        self.sent: list[dict[str, Any]] = []
        self.gone, self.reads = asyncio.Event(), True
        self.has_body = False

    @property
    def scope(self) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": "/v1/completions",
            "raw_path": b"/v1/completions",
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [(b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }

    async def receive(self) -> dict[str, Any]:
        if not self.has_body:
            self.has_body = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if not self.reads and message["type"] == "http.response.body":
            await asyncio.Event().wait()

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that has to happen soon."""
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("streams", [False, True])
def test_a_client_that_goes_frees_its_slot(model: Model, streams: bool) -> None:
    """Before the next step but one, whether it waited for a stream or for the whole; its session stays as it was."""

    async def go(site: Site) -> None:
        service, connection = site.served.service, Connection(stream=streams, session="kept")
        answer = asyncio.ensure_future(site.app(connection.scope, connection.receive, connection.send))
        await until(lambda: service.statistics.tokens > 0)
        connection.gone.set()
        await until(lambda: service.statistics.running == 0)
        assert service.statistics.tokens < 126  # it did not go on to the end
        await answer
        assert site.server.answered.counts["/v1/completions", 499] == 1
        assert service.sessions.position("open:kept") is None
        assert site.complete(prompt="a", session="kept", position=0).status_code == 200

    with opened_site(model, store=True, slots=1) as site:
        asyncio.run(go(site))


def test_a_request_that_is_given_up_while_it_is_opened_keeps_no_slot(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """As whoever runs the application may do when it ends."""

    async def go(site: Site) -> None:
        service, connection, is_open = site.served.service, Connection(stream=True), threading.Event()
        submit = service.submit_to

        def slowly(*given: Any, **settings: Any) -> Any:
            is_open.wait(10)
            return submit(*given, **settings)

        monkeypatch.setattr(service, "submit_to", slowly)
        answer = asyncio.ensure_future(site.app(connection.scope, connection.receive, connection.send))
        await asyncio.sleep(0.05)
        answer.cancel()
        await asyncio.wait([answer])
        is_open.set()
        await until(lambda: service.statistics.requests == 1)
        await until(lambda: site.served.measurements.ends["cancelled"] == 1)

    with opened_site(model) as site:
        asyncio.run(go(site))


def test_a_client_that_does_not_read_is_given_up(model: Model) -> None:
    """After some time; what others are told is not held up."""

    async def go(site: Site) -> None:
        connection = Connection(stream=True)
        connection.reads = False
        await site.app(connection.scope, connection.receive, connection.send)
        assert len(connection.sent) == 2
        await until(lambda: site.served.service.statistics.running == 0)

    with opened_site(model, ServeSettings(stall_timeout=0.05), slots=1) as site:
        asyncio.run(go(site))


def test_a_body_that_does_not_come_is_not_waited_for(model: Model) -> None:
    """For ever."""

    async def go(site: Site) -> None:
        connection = Connection()
        connection.has_body = True
        await site.app(connection.scope, connection.receive, connection.send)
        assert connection.sent[0]["status"] == 408
        connection = Connection()
        connection.has_body = True
        connection.gone.set()
        await site.app(connection.scope, connection.receive, connection.send)
        assert connection.sent[0]["status"] == 400

    with opened_site(model, ServeSettings(body_timeout=0.02)) as site:
        asyncio.run(go(site))


@pytest.mark.parametrize("begun", [False, True])
def test_engines_that_fail_are_an_error_in_the_stream_or_a_status(
    model: Model, begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as the client got; the next request is served."""

    async def go(site: Site) -> None:
        connection = Connection(stream=True)
        batch = site.served.service._worker.going.batch
        real, steps = batch.step, 0

        def step(*arguments: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps > (5 if begun else 0):
                raise RuntimeError("secret words")
            return real(*arguments)

        monkeypatch.setattr(batch, "step", step)
        await site.app(connection.scope, connection.receive, connection.send)
        assert connection.sent[0]["status"] == (200 if begun else 500)
        assert '"code":"engines_failed"' in connection.text
        assert "secret" not in connection.text
        assert not connection.sent[-1].get("more_body", False)
        assert "[DONE]" not in connection.text
        assert site.complete(prompt="a").status_code == 200

    with opened_site(model) as site:
        asyncio.run(go(site))
