"""The command, and OpenAI's own client, over real connections."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import openai
import pytest
from serving import listening, opened_site
from specimens import Goldens

from foveal import SessionStore, load
from foveal.runtime.model import Model
from foveal.serve.chat_template import ChatTemplate
from foveal.serve.loading import named
from foveal.serve.process import bind
from foveal.serve.settings import ServeSettings


def test_openais_client_works_as_it_is(model: Model) -> None:
    """Completions and chats, whole and streamed; its errors are its own."""
    settings = ServeSettings(tokens=("a token",))
    template = ChatTemplate("{{ messages[0].content }}")
    with opened_site(model, settings, template=template, store=True) as site:  # noqa: SIM117
        with (
            listening(site.app) as (address, _),
            openai.OpenAI(base_url=f"{address}/v1", api_key="a token", max_retries=0) as client,
        ):
            whole = client.completions.create(model="m", prompt="It was", seed=1, max_tokens=12, logprobs=2)
            assert whole.usage is not None
            assert whole.usage.completion_tokens == 12
            chunks = list(client.completions.create(model="m", prompt="It was", seed=1, max_tokens=12, stream=True))
            assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
            chat = client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "It was"}], seed=1, max_tokens=12
            )
            assert chat.choices[0].message.content == whole.choices[0].text
            with client.chat.completions.create(
                model="m",
                messages=[{"role": "user", "content": "It was"}],
                seed=1,
                max_tokens=12,
                stream=True,
                stream_options={"include_usage": True},
            ) as stream:
                pieces = list(stream)
            assert "".join(one.choices[0].delta.content or "" for one in pieces if one.choices) == whole.choices[0].text
            assert pieces[-1].usage == chat.usage
            assert [one.id for one in client.models.list()] == ["m"]
            assert client.models.retrieve("m").owned_by == "foveal"
            extra = {"session": "a", "position": 0, "top_k": 5, "foveal": True}
            assert (
                client.completions.create(model="m", prompt="a", extra_body=extra).choices[0].model_extra["foveal"]["session"]
            )
            with pytest.raises(openai.ConflictError):
                client.completions.create(model="m", prompt="a", extra_body=extra)
            with pytest.raises(openai.NotFoundError):
                client.completions.create(model="n", prompt="a")
            with pytest.raises(openai.BadRequestError) as caught:
                client.completions.create(model="m", prompt="a", temperature=-1)
            assert caught.value.param == "temperature"
            with pytest.raises(openai.AuthenticationError):
                client.with_options(api_key="another").models.list()


def test_one_connection_takes_many_requests(model: Model) -> None:
    """One after the other, refused ones and errors among them."""
    with opened_site(model, ServeSettings(max_body=1000)) as site, listening(site.app) as (address, _):  # noqa: SIM117
        with httpx.Client(base_url=address, limits=httpx.Limits(max_connections=1)) as client:
            for index in range(300):
                body = {"model": "m", "prompt": "a" * (2000 if index % 50 == 7 else 1), "max_tokens": 1}
                answer = client.post("/v1/completions", json=body)
                assert answer.status_code == (413 if index % 50 == 7 else 200)


def test_a_server_that_is_told_to_end_finishes_what_it_has_begun(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """It still answers, and takes nothing new; what takes too long ends with what it has."""
    with opened_site(model, slots=2) as site, listening(site.app, drain_seconds=0.05) as (address, server):
        found: list[str] = []

        def read() -> None:
            body = {"model": "m", "prompt": "a", "max_tokens": 1000, "stream": True, "foveal": True}
            with httpx.stream("POST", f"{address}/v1/completions", json=body) as answer:
                found.extend(answer.iter_lines())

        service, was_asked = site.served.service, threading.Event()
        batch = service._worker.going.batch
        step, close = batch.step, service.close
        monkeypatch.setattr(batch, "step", lambda *given: (time.sleep(0.02), step(*given))[1])
        monkeypatch.setattr(service, "close", lambda seconds=0.0: (was_asked.wait(10), close(seconds)))
        reader = threading.Thread(target=read)
        reader.start()
        while not service.statistics.tokens:
            time.sleep(0.005)
        server.handle_exit(signal.SIGTERM, None)
        assert httpx.get(f"{address}/ready").status_code == 503
        assert httpx.get(f"{address}/health").status_code == 200
        refused = httpx.post(f"{address}/v1/completions", json={"model": "m", "prompt": "a"})
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        was_asked.set()
        reader.join(10)
        events = [line for line in found if line]
        assert events[-1] == "data: [DONE]"
        last = json.loads(events[-2].removeprefix("data: "))
        assert last["choices"][0]["finish_reason"] == "length"
        assert last["foveal"]["finish_reason"] == "cancelled"


def test_a_second_signal_ends_a_server_at_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what they have; clients are told so if there is time for it."""
    with opened_site(model, slots=2) as site, listening(site.app, drain_seconds=60) as (address, server):
        batch = site.served.service._worker.going.batch
        step = batch.step
        monkeypatch.setattr(batch, "step", lambda *given: (time.sleep(0.05), step(*given))[1])
        body = {"model": "m", "prompt": "a", "max_tokens": 1000, "stream": True}
        with suppress(httpx.TransportError), httpx.stream("POST", f"{address}/v1/completions", json=body) as answer:
            for _ in answer.iter_raw():
                server.handle_exit(signal.SIGTERM, None)
                server.handle_exit(signal.SIGTERM, None)
        end = time.monotonic() + 3
        while site.served.service.is_alive:
            assert time.monotonic() < end
            time.sleep(0.01)


@contextmanager
def command(*arguments: str | Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """`foveal serve` in a process of its own; its address, and the lines that it wrote up to there."""
    line = [sys.executable, "-m", "foveal.cli", "serve", *map(str, arguments), "--port", "0"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}) as process:
        assert process.stderr is not None
        said: list[str] = []
        try:
            while not (said and (address := re.search(r"http://\S+?(?=;)", said[-1]))):
                said.append(process.stderr.readline())
                assert said[-1], said
            yield process, address.group(), said
        finally:
            process.kill()


def test_the_command_serves_several_bundles_and_keeps_their_sessions(goldens: Goldens, tmp_path: Path) -> None:
    """SIGTERM ends it without an error, what is in memory is in files then, and its log is lines of JSON."""
    bundle, other, store = goldens["s4_naive_attn"], goldens["s3_linear_noattn"], tmp_path / "store"
    options = ("--threads", "1", "--slots", "2", "--store-memory", "8", "--store", store)
    with command(f"one={bundle.path}", f"two={other.path}", *options, FOVEAL_TOKENS="a") as (process, address, _):
        with httpx.Client(base_url=address, headers={"authorization": "Bearer a"}) as client:
            assert [one["id"] for one in client.get("/v1/models").json()["data"]] == ["one", "two"]
            body = {"model": "one", "prompt": "It was", "session": "anna", "max_tokens": 4}
            assert client.post("/v1/completions", json=body).status_code == 200
            assert client.get("/v1/sessions/anna?model=one").json()["position"] == 10
            assert client.get("/v1/sessions/anna?model=two").status_code == 404
            assert client.get("/v1/sessions/anna").status_code == 400
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        lines = [json.loads(line) for line in process.stderr.read().splitlines()]
        assert process.wait(20) == 0
    assert [line["status"] for line in lines if line.get("event") == "request"] == [200, 200, 200, 404, 400]
    kept = SessionStore(load(bundle, threads=1), 8 << 20, store)
    assert len(kept) == 1
    kept.close()


def test_names_of_bundles(tmp_path: Path) -> None:
    """Given, or the last part of the path."""
    assert named(["a.bundle", f"b={tmp_path}/c.bundle"]) == {"a": Path("a.bundle"), "b": tmp_path / "c.bundle"}
    for wrong in (["a.bundle", "a=b.bundle"], ["=x"], [".bundle"], ["é=x"]):
        with pytest.raises(Exception, match="call|name"):
            named(wrong)


def test_a_place_that_cannot_be_listened_at_is_named() -> None:
    """Because another program has it, it is no address of this machine, or there is none of that name."""
    with bind("127.0.0.1", 0) as taken:
        for host, port in (
            ("127.0.0.1", taken.getsockname()[1]),
            ("192.0.2.1", 0),
            ("no.such.host.invalid", 0),
            ("127.0.0.1", 70_000),
        ):
            with pytest.raises(Exception, match="can't listen on"):
                bind(host, port)


@pytest.mark.deep
def test_schemathesis_finds_nothing(model: Model, tmp_path: Path) -> None:
    """In requests that it makes up from the description; it is a command of its own."""
    command = shutil.which("schemathesis")
    if command is None:
        pytest.skip("schemathesis is not installed")
    with opened_site(model, ServeSettings(max_output=8), store=True) as site, listening(site.app) as (address, _):
        line = [command, "--config-file", str(Path(__file__).with_name("schemathesis.toml")), "run", f"{address}/openapi.json"]
        done = subprocess.run([*line, "--max-examples", "50"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
