"""What clients, disks and networks may do to a server, and what becomes of it. docs/faults.md has the same as a table."""

from __future__ import annotations

import errno
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from raw_http import Wire, ask, get, post
from serving import Site, error_of, listening, opened_site

from foveal.runtime.model import Model
from foveal.runtime.store import store_folder
from foveal.runtime.store.session_store import SessionStore
from foveal.serve.settings import ServeSettings
from foveal.storage import named

SOON = 10.0


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that has to happen soon."""
    end = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)


class Steps:
    """Has a batch make its steps one by one, as they are asked for."""

    def __init__(self, site: Site) -> None:
        self.service = site.served.service
        self._allowed, self._is_free = threading.Semaphore(0), False
        self.is_held = False
        """Whether a step has begun, and waits to be allowed: what comes now comes while it is under way."""
        batch = self.service._worker.going.batch
        real = batch.step

        def step(*given: Any) -> Any:
            if not self._is_free:
                self.is_held = True
                self._allowed.acquire()
                self.is_held = False
            return real(*given)

        batch.step = step  # type: ignore[method-assign]

    def make(self, count: int = 1) -> None:
        """Allow so many, and wait for them."""
        before = self.service.statistics.steps
        self._allowed.release(count)
        until(lambda: self.service.statistics.steps >= before + count)

    def free(self) -> None:
        """Allow all."""
        self._is_free = True
        self._allowed.release(1000)

    @property
    def is_cancelling(self) -> bool:
        """Whether the thread that steps was told that a client has gone."""
        return bool(self.service._worker._cancelled)


@pytest.fixture(scope="module")
def place(model: Model) -> Iterator[tuple[Site, str]]:
    """A server with limits that are reached soon, and its address."""
    settings = ServeSettings(body_timeout=0.3, stall_timeout=0.3, max_body=100_000)
    with opened_site(model, settings, store=True) as site, listening(site.app) as (address, _):
        yield site, address


def check_serves(address: str) -> None:
    """The next client is served."""
    assert ask(address, post("connection: close", max_tokens=1))[0] == 200


NOT_HTTP = {
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a version that there is not": b"GET / HTTP/7.3\r\nhost: x\r\n\r\n",
    "HTTP/2 without being asked": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a path that is no ASCII": b"GET /v1/models/\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
    "two lengths": post("content-length: 3"),
    "a length and chunks": post("transfer-encoding: chunked"),
    "a length below zero": b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    "a length beyond all numbers": b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n",
    "a chunk that is none": b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    "a header with a line break": get("/health", "a: b\n\tc", "d\x00: e"),
    "a tunnel": b"CONNECT a:80 HTTP/1.1\r\nhost: x\r\n\r\n",
}


@pytest.mark.parametrize("kind", NOT_HTTP)
def test_what_is_not_http_is_refused(place: tuple[Site, str], kind: str) -> None:
    """With 400, or the connection is cut off if an answer was under way; the next client is served."""
    with Wire(place[1]) as wire:
        try:
            found = wire.send(NOT_HTTP[kind]).read_all()
        except ConnectionError:
            found = b""
    assert not found or (found.startswith(b"HTTP/1.1 400 ") and b'{"error":{' in found)
    check_serves(place[1])


FLOODS = {
    "one long header": get("/health", "a: " + "b" * 100_000),
    "many headers": get("/health", *["a: b"] * 20_000),
    "a long path": get("/" + "a" * 70_000),
    "a header without end": b"GET /health HTTP/1.1\r\na: " + b"b" * 4_000_000,
    "headers without end": b"GET /health HTTP/1.1\r\n" + b"a: b\r\n" * 500_000,
}


@pytest.mark.parametrize("kind", FLOODS)
def test_headers_have_a_limit(place: tuple[Site, str], kind: str) -> None:
    """431, or 400 for a path that no parser takes, within a moment: nothing of what exceeds it is kept."""
    began = time.monotonic()
    with Wire(place[1]) as wire:
        sender = threading.Thread(target=_send_quietly, args=(wire, FLOODS[kind]))
        sender.start()
        try:
            found = wire.read_all()
        except ConnectionError:
            found = b"HTTP/1.1 431 "  # the answer was there, and lost as the client went on sending
        sender.join(SOON)
    assert found.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))
    assert time.monotonic() - began < 5
    check_serves(place[1])


def _send_quietly(wire: Wire, data: bytes) -> None:
    with suppress(OSError):
        wire.send(data)


def test_headers_within_the_limit_are_taken(place: tuple[Site, str]) -> None:
    """Also when they come in pieces, and again in the same connection, after a body that is larger than the limit."""
    with Wire(place[1]) as wire:
        for _ in range(3):
            data = post("a: " + "b" * 50_000, prompt="a", user="c" * 90_000, max_tokens=1)
            for start in range(0, len(data), 30_000):
                wire.send(data[start : start + 30_000])
            assert wire.read_answer()[0] == 200


@pytest.mark.parametrize("data", [b"", b"\r\n", b"GET /health HTTP/1.1\r\nhost:", b"POST /v1/completions HTTP/1.1\r\na: b\r\n"])
def test_who_sends_no_request_is_cut_off(place: tuple[Site, str], data: bytes) -> None:
    """After some time, however much of a head came; bytes now and then gain nothing."""
    began = time.monotonic()
    with Wire(place[1]) as wire:
        wire.send(data)
        wire.socket.settimeout(0.05)
        while time.monotonic() - began < 5:
            try:
                if not wire.socket.recv(100):
                    break
            except TimeoutError:
                wire.send(b"\r\n" if data == b"\r\n" else data[-1:] and b"a")
            except ConnectionError:
                break
        else:
            pytest.fail("the server waited")
    assert time.monotonic() - began >= 0.25


def test_a_body_that_comes_slowly_is_not_waited_for(place: tuple[Site, str]) -> None:
    """408; who goes on with it is cut off."""
    began = time.monotonic()
    with Wire(place[1]) as wire:
        wire.send(
            b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{"
        )
        assert wire.read_answer()[0] == 408
        with pytest.raises(OSError, match="."):
            while time.monotonic() - began < 5:
                wire.send(b" ")
                time.sleep(0.02)
    assert 0.5 < time.monotonic() - began < 3
    check_serves(place[1])


@pytest.mark.parametrize("streams", [False, True])
def test_who_reads_nothing_is_cut_off(model: Model, streams: bool) -> None:
    """After some time; others are served meanwhile, and the slots are free then."""
    settings = ServeSettings(stall_timeout=0.3, max_texts=1000)
    fields: dict[str, Any] = {"n": 3, "max_tokens": 1000, "logprobs": 5, "foveal": True, "seed": 1, "stream": streams}
    with (
        opened_site(model, settings, slots=4, queue=400) as site,
        listening(site.app, send_buffer=4096) as (address, server),
        Wire(address, buffer=2048) as wire,
    ):
        service = site.served.service
        wire.send(post(**fields))
        until(lambda: service.statistics.tokens > 0)
        check_serves(address)
        until(lambda: service.statistics.running == 0)
        until(lambda: not server.server_state.connections)
        check_serves(address)
        assert wire.socket.recv(15) == b"HTTP/1.1 200 OK"  # what the system holds of it


def test_who_reads_slowly_gets_all(model: Model) -> None:
    """As long as something is read now and then."""
    with (
        opened_site(model, ServeSettings(stall_timeout=0.5)) as site,
        listening(site.app, send_buffer=4096) as (address, _),
        Wire(address, buffer=2048) as wire,
    ):
        wire.send(post("connection: close", max_tokens=127, logprobs=5, foveal=True, stream=True))
        found = b""
        while data := wire.socket.recv(4000):
            found += data
            time.sleep(0.005)
        assert b"data: [DONE]\n\n" in found
        assert found.endswith(b"0\r\n\r\n")


def test_ten_thousand_requests_in_one_connection(place: tuple[Site, str]) -> None:
    """One behind the other, most sent before the answers to those before them were there: each is answered, in its order."""
    site, address = place
    before = site.served.service.statistics.requests
    count, window = 10_000, 200
    with Wire(address) as wire:
        for begin in range(0, count, window):
            sent = [_request(index) for index in range(begin, begin + window)]
            wire.send(b"".join(sent))
            for index in range(begin, begin + window):
                status, headers, body = wire.read_answer()
                assert headers["x-request-id"] == f"r{index}"
                assert status == {7: 404, 13: 400, 50: 200}.get(index % 100, 200)
                assert body[:1] == b"{"
    assert site.served.service.statistics.requests == before + count // 100
    until(lambda: site.server.state.running == 0)


def _request(index: int) -> bytes:
    name = f"x-request-id: r{index}"
    if index % 100 == 7:
        return get("/nothing", name)
    if index % 100 == 13:
        return post(name, max_tokens=-1)
    return post(name, max_tokens=1) if index % 100 == 50 else get("/health", name)


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("where", ["decoding", "reading", "waiting"])
def test_who_goes_frees_the_slot_within_a_step(model: Model, streams: bool, where: str) -> None:
    """Wherever the request was by then; the step that is under way is the last one that has it."""
    with opened_site(model, slots=1, queue=4) as site, listening(site.app) as (address, _):
        steps, service = Steps(site), site.served.service
        with Wire(address) as first, Wire(address) as second:
            first.send(post(prompt="a" * 100, max_tokens=27, stream=streams))
            until(lambda: service._worker.texts == 1)
            if where == "decoding":
                while not service.statistics.tokens:
                    steps.make()
            gone = first
            if where == "waiting":
                second.send(post(max_tokens=5, stream=streams))
                until(lambda: service._worker.texts == 2)
                gone = second
            until(lambda: steps.is_held)
            tokens = service.statistics.tokens
            gone.socket.close()
            until(lambda: steps.is_cancelling)
            steps.make()
            left = 1 if where == "waiting" else 0
            until(lambda: service._worker.texts == left)
            assert service.statistics.running + service.statistics.reading == left
            assert service.statistics.tokens <= tokens + 1
            steps.free()
        until(lambda: service._worker.texts == 0)
        check_serves(address)


def test_many_that_go_at_once_leave_nothing(model: Model) -> None:
    """No slot, no place in the queue, no session that stays busy; those that stay get what they would have got alone."""
    with opened_site(model, store=True, slots=2, queue=100) as site, listening(site.app) as (address, _):
        alone = site.text(prompt="It was", max_tokens=40, seed=3)

        def stay(_: int) -> str:
            return json.loads(ask(address, post("connection: close", prompt="It was", max_tokens=40, seed=3))[1])["choices"][0][
                "text"
            ]

        def go(index: int) -> None:
            with Wire(address) as wire:
                wire.send(post(max_tokens=100, stream=bool(index % 2), session=f"s{index}"))
                time.sleep(0.003 * (index % 7))

        with ThreadPoolExecutor(8) as pool:
            kept = [pool.submit(stay if index % 4 == 0 else go, index) for index in range(40)]
            found = [one.result() for one in kept]
        assert {text for text in found if text is not None} == {alone}
        until(lambda: site.served.service._worker.texts == 0)
        assert not site.served.service.sessions._busy
        until(lambda: site.server.state.running == 0)


@pytest.mark.parametrize(
    "name", ["../m", "/etc/passwd", "m/../m", "..%2Fm", "m\0", "m.bundle", "\\m", "M", "", "m" * 10_000, "é"]
)
def test_names_of_models_are_no_paths(place: tuple[Site, str], name: str) -> None:
    """Those that are not served are not there, wherever files of that name may be."""
    site = place[0]
    assert error_of(site.complete(model=name, prompt="a"), 404)["code"] == "model_not_found"


@pytest.mark.parametrize("path", ["../m", "%2e%2e%2fm", "m%00", "%2fetc%2fpasswd", "%ff", "..%5cm", "%ed%a0%80", "m%0d%0aa:b"])
def test_paths_lead_nowhere(place: tuple[Site, str], path: str) -> None:
    """Of models, of sessions and of the page's files."""
    for begin in ("/v1/models/", "/v1/sessions/", "/v1/sessions/a?model=", "/page/", "/"):
        status, body = ask(place[1], get(begin + path, "connection: close"))
        assert status in (400, 404, 405)
        assert b"root:" not in body


@pytest.mark.parametrize("name", ["../a", "a/b", ".", "..", "", "a\0", "a\n", "é", "a" * 129, "-a", "C:\\a"])
def test_names_of_sessions_are_words(model: Model, tmp_path: Path, name: str) -> None:
    """400 for what is none; and files of sessions have names of their own."""
    with _on_disk(model, tmp_path) as (site, _):
        assert site.refusal(400, prompt="a", session=name)["param"] == "session"
        site.text(prompt="a", session="a.b:c_d-e", max_tokens=1)
    assert all(path.is_relative_to(tmp_path / "store") for path in tmp_path.rglob("*") if path.is_file())


def test_other_methods_and_versions(place: tuple[Site, str]) -> None:
    """405 that says which there are; HTTP/1.0 is answered, and its connection ended."""
    address = place[1]
    for method, allowed in (("OPTIONS", "POST"), ("HEAD", "POST"), ("TRACE", "POST"), ("PUT", "POST")):
        with Wire(address) as wire:
            wire.send(get("/v1/completions", "connection: close").replace(b"GET", method.encode()))
            found = wire.read_all()
        assert found.startswith(b"HTTP/1.1 405 ")
        assert f"allow: {allowed}\r\n".encode() in found.lower().replace(b"post", b"POST")
    assert ask(address, b"GET /health HTTP/1.0\r\n\r\n")[0] == 200
    assert (
        ask(address, get("/health", "connection: close", "upgrade: websocket").replace(b"close", b"close, upgrade"))[0] == 200
    )


@pytest.mark.parametrize("is_slow", [False, True])
def test_clients_that_ask_for_http_2_have_their_body_read(is_slow: bool, place: tuple[Site, str]) -> None:
    """As curl --http2 and Java's client ask, with every request: it is answered as HTTP/1.1, and so is what comes behind it."""
    asks = ("connection: upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")
    chunked = post(*asks, "transfer-encoding: chunked")
    head, body = chunked.split(b"\r\n\r\n", 1)
    head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length"))
    sent = [
        post(*asks),
        b"%b\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (head, len(body), body),
        post(),
        post("connection: close, upgrade", "upgrade: websocket"),
    ]
    with Wire(place[1]) as wire:
        for data in sent if not is_slow else (bytes([byte]) for byte in b"".join(sent)):
            wire.send(data)
        found = wire.read_all()
    assert found.count(b"HTTP/1.1 200 ") == found.count(b"HTTP/1.1 ") == 4


def test_compressed_bodies_are_refused(place: tuple[Site, str]) -> None:
    """415: they might be larger than they look."""
    assert ask(place[1], post("content-encoding: gzip", "connection: close"))[0] == 415


@contextmanager
def _on_disk(model: Model, folder: Path) -> Iterator[tuple[Site, SessionStore]]:
    """A server that keeps its sessions in files alone."""
    with SessionStore(model, 0, folder / "store") as store, opened_site(model, store=store) as site:
        yield site, store


def _begin(site: Site, session: str) -> int:
    found = site.complete(prompt="It was", session=session, position=0, max_tokens=8, temperature=0)
    assert found.status_code == 200
    return found.json()["choices"][0]["foveal"]["session"]["position"]


def _flip(folder: Path, kind: str, position: int = -1) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and kind in path.parts:
            data = bytearray(path.read_bytes())
            data[position] ^= 1
            path.write_bytes(data)


@pytest.mark.parametrize("given", ["its position", "no position", "position 0"])
def test_a_session_whose_files_were_altered_is_lost(model: Model, tmp_path: Path, given: str) -> None:
    """409 says so, once, without a word of files; under position 0 it begins anew, at once."""
    with _on_disk(model, tmp_path) as (site, store):
        position = _begin(site, "anna")
        assert _begin(site, "bert") == position
        _flip(tmp_path, "blocks")
        if given != "position 0":
            fields = {"position": position} if given == "its position" else {}
            error = site.refusal(409, prompt="a", session="anna", **fields)
            assert (error["code"], error["position"]) == ("session_lost", None)
            assert "/" not in error["message"]
        alone = site.text(prompt="It was", max_tokens=8, temperature=0)
        assert site.text(prompt="It was", session="anna", position=0, max_tokens=8, temperature=0) == alone
        assert store.statistics.damaged >= 1


def test_a_session_whose_own_file_was_altered_is_not_there_at_the_next_start(model: Model, tmp_path: Path) -> None:
    """It is counted; the others go on as if nothing had been."""
    with _on_disk(model, tmp_path) as (site, _):
        position = _begin(site, "anna")
    _flip(tmp_path, "sequences", 40)
    with _on_disk(model, tmp_path) as (site, store):
        assert store.statistics.damaged == 1
        assert site.refusal(409, prompt="a", session="anna", position=position)["position"] is None
        assert _begin(site, "anna") == position


def test_a_full_disk_takes_no_text_away(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts come whole; the session says that it was not kept, stands where it stood, and goes on from there later."""
    whole = "".join(model.generate("It was", max_new_tokens=20, temperature=0))
    with _on_disk(model, tmp_path) as (site, _):
        position = _begin(site, "anna")
        with monkeypatch.context() as patch:
            patch.setattr(store_folder, "write_atomically", _no_room)
            fields = {"prompt": "", "session": "anna", "temperature": 0}
            full = site.complete(**fields, position=position, max_tokens=12)
            assert full.status_code == 200
            assert whole.endswith(full.json()["choices"][0]["text"])
            assert full.json()["choices"][0]["foveal"]["session"] == {"id": "anna", "position": None}
            chunks = site.chunks(**fields, position=position, max_tokens=12)
            assert chunks[-1]["foveal"]["session"]["position"] is None
            assert site.refusal(409, **fields, position=position + 12)["position"] == position
            assert site.complete(prompt="a", max_tokens=2).status_code == 200
            assert site.client.get("/ready").status_code == 200
        again = site.complete(**fields, position=position, max_tokens=12).json()["choices"][0]
        assert whole.endswith(again["text"])
        assert again["foveal"]["session"]["position"] == position + 12


def _no_room(path: Path, data: bytes) -> None:
    raise named(OSError(errno.ENOSPC, "No space left on device"), path)


def test_a_disk_that_cannot_be_read_is_an_error_of_the_server(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503, without a word of files; the session is still there when the disk is."""
    with _on_disk(model, tmp_path) as (site, _):
        position = _begin(site, "anna")
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", _broken)
            error = site.refusal(503, prompt="a", session="anna", position=position)
            assert error["code"] == "storage_failed"
            assert str(tmp_path) not in error["message"]
        assert site.complete(prompt="a", session="anna", position=position).status_code == 200


def _broken(path: Path) -> bytes:
    raise OSError(errno.EIO, "Input/output error", str(path))


def test_wrong_tokens_wear_nothing_out(model: Model) -> None:
    """Whatever they are, whoever bears the right one is served in the same connection."""
    with (
        opened_site(model, ServeSettings(tokens=("right",))) as site,
        listening(site.app) as (address, _),
        Wire(address) as wire,
    ):
        for value in ("", "Bearer", "Bearer wrong", "Bearer " + "a" * 60_000, "Basic cmlnaHQ=", "bearer\tright"):
            assert wire.send(post(f"authorization: {value}", max_tokens=1)).read_answer()[0] == 401
        assert wire.send(post("authorization: Bearer right", max_tokens=1)).read_answer()[0] == 200
