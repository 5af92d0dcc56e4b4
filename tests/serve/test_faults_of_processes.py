"""Servers that are killed, told to end, or can't begin. docs/faults.md has the same as a table."""

from __future__ import annotations

import signal
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from serve_process import Server, refused, serving
from serving import chunks_of
from specimens import Goldens

from foveal import cli

PROMPT, TURN, WHOLE = "It was", 4, 110


@dataclass
class Talk:
    """A session as its client saw it last: how many tokens it holds, and those that it drew."""

    name: str
    position: int = 0
    ids: list[int] = field(default_factory=list)


def _go_on(client: httpx.Client, talk: Talk) -> httpx.Response:
    fields = {"session": talk.name, "position": talk.position, "max_tokens": TURN, "temperature": 0, "foveal": True}
    answer = client.post("/v1/completions", json={"model": "m", "prompt": "" if talk.position else PROMPT, **fields})
    if answer.status_code == 200:
        found = answer.json()["choices"][0]["foveal"]
        talk.position = found["session"]["position"]
        talk.ids += [token["token"] for token in found["tokens"]]
    return answer


def _talk(server: Server, talk: Talk) -> None:
    """Until the server is killed."""
    with httpx.Client(base_url=server.address) as client:
        for _ in range(25):
            try:
                assert _go_on(client, talk).status_code == 200
            except httpx.TransportError:
                return


def _stream(address: str) -> list[dict[str, Any]]:
    """The chunks of a stream, which has to come to a regular end."""
    body = {"model": "m", "prompt": PROMPT, "max_tokens": WHOLE, "temperature": 0, "stream": True, "foveal": True}
    return chunks_of(httpx.post(f"{address}/v1/completions", json=body, timeout=60).raise_for_status().text)


def _ids(chunks: list[dict[str, Any]]) -> list[int]:
    return [token["token"] for chunk in chunks for token in chunk["foveal"].get("tokens", ())]


def _load(pool: ThreadPoolExecutor, server: Server, count: int) -> list[Future[list[dict[str, Any]]]]:
    """Streams, all of which have been taken."""

    def taken() -> int:
        found: int = httpx.get(f"{server.address}/status").json()["models"][0]["requests"]
        return found

    before, end = taken(), time.monotonic() + 20
    found = [pool.submit(_stream, server.address) for _ in range(count)]
    while taken() < before + count:
        assert time.monotonic() < end
    return found


def test_a_server_that_is_killed_loses_no_more_than_it_says(goldens: Goldens, tmp_path: Path) -> None:
    """SIGKILL while sessions are written to files. At the next start each of them goes on where its client saw it last, or the
    client is told where it stands; what it goes on with is what it would have been; what was damaged is counted.

    While that server runs no second one takes its files, or its port. SIGTERM ends it with all that was asked for."""
    bundle, store = goldens["s4_naive_attn"], tmp_path / "store"
    options = (f"m={bundle.path}", "--threads", "1", "--slots", "2", "--queue", "40", "--store-memory", "0", "--store", store)
    talks = [Talk(f"s{index}") for index in range(6)]
    with serving(*options) as server, ThreadPoolExecutor(6) as pool:
        whole = _ids(_stream(server.address))
        talking = [pool.submit(_talk, server, talk) for talk in talks]
        while min(talk.position for talk in talks) < 10 or max(talk.position for talk in talks) < 30:
            assert not any(one.done() for one in talking)
        assert server.end(signal.SIGKILL) == -signal.SIGKILL
        for one in talking:
            one.result()
    cut_short = min(store.rglob("sequences/[!.]*"))  # others were being written
    cut_short.write_bytes(cut_short.read_bytes()[:-5])
    with serving(*options) as server:
        _check_talks(server, talks, whole)
        assert "another store" in refused(*options, "--port", "0")
        assert "can't listen" in refused(f"m={bundle.path}", "--port", server.address.rpartition(":")[2])
        with ThreadPoolExecutor(20) as pool:
            streams = _load(pool, server, 20)
            assert server.end(signal.SIGTERM) == 0
            for stream in streams:
                chunks = stream.result()
                assert _ids(chunks) == whole
                assert chunks[-1]["foveal"]["finish_reason"] == "length"
        assert not [line for line in server.log if "trace" in line]


def _check_talks(server: Server, talks: list[Talk], whole: list[int]) -> None:
    lost = 0
    with httpx.Client(base_url=server.address) as client:
        assert client.get("/status").json()["models"][0]["store"]["damaged"] == 1
        for talk in talks:
            assert talk.ids == whole[: len(talk.ids)]
            answer = _go_on(client, talk)
            if answer.status_code == 409:
                error = answer.json()["error"]
                assert error["code"] == "session_lost"
                assert error["position"] is None or error["position"] > talk.position  # stored, and killed before it was told
                lost += error["position"] is None
                talk.position = error["position"] or 0
                talk.ids = whole[: max(0, talk.position - len(PROMPT))]
                answer = _go_on(client, talk)
            assert answer.status_code == 200
            assert talk.ids == whole[: len(talk.ids)]
            assert talk.position == len(PROMPT) + len(talk.ids)
    assert lost == 1


def test_a_server_that_is_told_twice_ends_at_once(goldens: Goldens) -> None:
    """All streams come to a regular end, with what they have. Told while nothing is to be done it ends right away."""
    options = (f"m={goldens['s4_naive_attn'].path}", "--threads", "1", "--slots", "1", "--queue", "40", "--drain", "60")
    with serving(*options) as server, ThreadPoolExecutor(30) as pool:
        whole = _ids(_stream(server.address))
        streams = _load(pool, server, 30)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
        began = time.monotonic()
        assert server.end(signal.SIGTERM) == 0
        assert time.monotonic() - began < 5
        reasons = set()
        for stream in streams:
            chunks = stream.result()
            assert _ids(chunks) == whole[: len(_ids(chunks))]
            reasons.add(chunks[-1]["foveal"]["finish_reason"])
        assert "cancelled" in reasons
        assert not [line for line in server.log if "trace" in line]
    with serving(*options) as server:
        began = time.monotonic()
        assert server.end(signal.SIGTERM) == 0
        assert time.monotonic() - began < 3


def test_a_bundle_that_is_none_is_one_line(
    goldens: Goldens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As are one that is missing, one that was altered, and a store in a place that can't be; before anything listens."""
    altered = tmp_path / "altered.bundle"
    altered.mkdir()
    (altered / "manifest.json").write_text("{")
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(cli, "own_process", lambda: None)  # it is not: the tests' own threads stay as they are
    good = f"m={goldens['s4_naive_attn'].path}"
    for arguments in (
        ["missing.bundle"],
        [str(tmp_path / "missing.bundle")],
        [f"m={altered}"],
        [f"m={tmp_path}"],
        [good, "m=other.bundle"],
        [good, "--store", str(tmp_path / "file" / "store")],
        [good, "--token-file", str(tmp_path / "missing")],
        [good, "--chat-template", str(tmp_path / "missing")],
    ):
        monkeypatch.setattr(sys, "argv", ["foveal", "serve", *arguments, "--port", "0", "--threads", "1"])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        said = capsys.readouterr().err
        assert caught.value.code == 1
        assert said.startswith("foveal: ")
        assert said.count("\n") == 1, said
