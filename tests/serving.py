"""Servers in this process, for tests of what they answer."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI
from starlette.testclient import TestClient

from foveal import Service, SessionStore
from foveal.runtime.model import Model
from foveal.serve.app import create_app
from foveal.serve.chat_template import ChatTemplate
from foveal.serve.measurements import Measurements
from foveal.serve.process import GracefulServer, bind, config_of
from foveal.serve.served import Served
from foveal.serve.server import Server
from foveal.serve.settings import ServeSettings


@dataclass(frozen=True)
class Site:
    """A server of one model, and a client of it."""

    app: FastAPI
    client: TestClient
    served: Served

    @property
    def server(self) -> Server:
        return self.app.state.server

    def complete(self, **fields: Any) -> httpx.Response:
        """Ask for a completion; of `m`, unless it says otherwise."""
        return self.client.post("/v1/completions", json={"model": "m", **fields})

    def text(self, **fields: Any) -> str:
        """Of a completion that has to succeed."""
        answer = self.complete(**fields)
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["text"]

    def refusal(self, status: int, **fields: Any) -> dict[str, Any]:
        """What is said of a completion that has to fail."""
        return error_of(self.complete(**fields), status)

    def chunks(self, **fields: Any) -> list[dict[str, Any]]:
        """Of a streamed completion that has to succeed."""
        answer = self.complete(stream=True, **fields)
        assert answer.status_code == 200, answer.text
        return chunks_of(answer.text)


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """What an answer says of an error, in OpenAI's form."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    assert error["message"]
    assert error["type"]
    return error


def chunks_of(text: str) -> list[dict[str, Any]]:
    """The events of a stream that came to its end."""
    events = text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


@contextmanager
def opened_site(
    model: Model,
    settings: ServeSettings | None = None,
    store: bool | SessionStore = False,
    template: ChatTemplate | None = None,
    **options: Any,
) -> Iterator[Site]:
    """A site as long as it is needed; `options` as of `Service`."""
    with ExitStack() as stack:
        kept = SessionStore(model, 64 << 20) if store is True else store if isinstance(store, SessionStore) else None
        measurements = Measurements(model.specs)
        options = {"slots": 4, "queue": 8, "observer": measurements, **options}
        service = stack.enter_context(Service(model, store=kept, **options))
        served = Served("m", model, service, measurements, template)
        app = create_app({"m": served}, settings)
        yield Site(app, stack.enter_context(TestClient(app)), served)


@contextmanager
def listening(app: FastAPI, drain_seconds: float = 5.0, send_buffer: int | None = None) -> Iterator[tuple[str, GracefulServer]]:
    """A real server on a port of this machine, in a thread; its address. Of what clients do not read, the system takes in as
    much as it likes, or `send_buffer` bytes."""
    sockets = [bind("127.0.0.1", 0)]
    if send_buffer is not None:
        sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    server = GracefulServer(config_of(app, 2), app.state.server, drain_seconds)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets)))
    thread.start()
    try:
        yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}", server
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
