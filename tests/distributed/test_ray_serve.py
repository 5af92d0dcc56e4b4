"""`foveal serve --ray`: two replicas under load; what happens to one of them is lost on nobody, or said."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from ray_commands import PATIENCE, RayCommand, is_there
from serve_clients import SessionClient, ask, ask_again, look, said
from specimens import random_model
from store import Store

from foveal import Service, SessionStore, load
from foveal.bundle import Bundle, open_bundle
from foveal.export import convert_model

SIZES = {"vocab_size": 256, "max_positions": 1024}
PROMPT, TOKENS = "It was ", 200
SLOTS, QUEUE, QUEUED = 4, 4, 8
REPLICAS = ("--replicas", 2, "--cpus-per-replica", 0.5, "--threads", 1, "--slots", SLOTS, "--queue", QUEUE)


@pytest.fixture(scope="module")
def bundles(store: Store) -> tuple[Bundle, Bundle]:
    """Of bytes, with room for long texts: the one that is served, and the one after it."""

    def make(seed: int) -> Bundle:
        made = store.once(
            f"ray/{seed}",
            lambda directory: convert_model(random_model("1@1 1@4 1@1", seed, **SIZES), directory / "m", tokenizer="bytes"),
        )
        return open_bundle(made / "m")

    return make(0), make(1)


@pytest.fixture(scope="module")
def command(turn: Path, bundles: tuple[Bundle, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCommand]:
    """`foveal serve --ray`, two replicas."""
    output = tmp_path_factory.mktemp("serve") / "output"
    command = RayCommand(turn, output, "serve", f"m={bundles[0].path}", "--ray", "--port", 0, "--max-queued", QUEUED, *REPLICAS)
    try:
        command.wait_until(lambda: "serves at" in command.said)
        yield command
    finally:
        command.end()


@pytest.fixture
def address(command: RayCommand) -> str:
    """Where it listens."""
    found = re.search(r"http://127\.0\.0\.1:\d+", command.said)
    assert found is not None, command.said
    return found.group()


def test_a_session_says_where_it_should_stand_and_by_which_header_it_is_found(address: str) -> None:
    """A request that may be anywhere, or that would begin anew without a word, is refused."""
    session = {"prompt": PROMPT, "session": "s", "max_tokens": 4}
    for body, headers, code in (
        (session | {"position": 0}, {}, "session_header"),
        (session | {"position": 0}, {"x-session-id": "t"}, "session_header"),
        (session, {"x-session-id": "s"}, "missing_field"),
    ):
        told = ask(address, body, headers)
        assert (told.status, told.data["code"]) == (400, code)
    told = ask(address, session | {"position": 0}, {"x-session-id": "s"})
    assert told.data["foveal"]["session"] == {"id": "s", "position": len(PROMPT) + 4}
    again = ask(address, session | {"position": 5}, {"x-session-id": "s"})
    assert (again.status, again.data["code"], again.replica) == (409, "session_lost", told.replica)


def test_a_client_that_goes_frees_its_slot(address: str) -> None:
    """Through Ray's proxy, too."""
    place = urlsplit(address)
    with socket.create_connection((place.hostname, place.port)) as one:
        body = b'{"model": "m", "stream": true, "prompt": "It was ", "max_tokens": 1000, "max_seconds": 500}'
        one.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (len(body), body)
        )
        assert one.recv(1000).startswith(b"HTTP/1.1 200")
    is_idle = dict[str | None, bool]()

    def are_idle() -> bool:
        replica, told = look(address, "/status")
        is_idle[replica] = not told["models"][0]["running"] and told["models"][0]["tokens"] < 900
        return len(is_idle) == 2 and all(is_idle.values())

    wait_for(are_idle)


def test_more_than_all_replicas_hold_is_refused_with_a_time_to_try_again(address: str) -> None:
    """By Ray, before it reaches a replica: here as clients hold all places who never send their requests."""
    place = urlsplit(address)
    head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    waiting, answered = list[socket.socket](), list[socket.socket]()
    with ExitStack() as stack:
        while not answered:
            assert len(waiting) <= 4 * (SLOTS + QUEUE + 8) + QUEUED
            waiting.append(stack.enter_context(socket.create_connection((place.hostname, place.port))))
            waiting[-1].sendall(head)
            answered, _, _ = select.select(waiting, [], [], 0.05)
        told = answered[0].recv(10_000).lower()
    assert len(waiting) > 2 * (SLOTS + QUEUE)
    assert told.startswith(b"http/1.1 503")
    assert b"\r\nretry-after: 2\r\n" in told
    assert ask_again(address, {"prompt": PROMPT, "max_tokens": 2}).status == 200


def test_a_replica_is_killed_under_load(command: RayCommand, address: str, bundles: tuple[Bundle, Bundle]) -> None:
    """What can be sent again is answered; sessions of the other replica go on; the rest say that they are lost."""
    names = [f"s{number}" for number in range(8)]
    stop = threading.Event()
    clients = [SessionClient(address, name, texts, stop) for name, texts in turns_of(bundles[0], names).items()]
    plain, expected = list[str](), text_of(bundles[0], 24)
    others = [threading.Thread(target=ask_on, args=(address, plain, stop)) for _ in range(2)]
    for one in (*clients, *others):
        one.start()
    try:
        wait_for(lambda: all(client.turns >= 2 for client in clients) or broken(clients))
        homes = {client.name: client.replicas[0] for client in clients}
        os.kill(command.processes("ray::ServeReplica")[0], signal.SIGKILL)
        before = set(homes.values())
        assert len(before) == 2
        wait_for(lambda: {client.replicas[-1] for client in clients} - before or broken(clients))
        counts = {client.name: client.turns for client in clients}
        wait_for(lambda: all(client.turns >= counts[client.name] + 3 for client in clients) or broken(clients))
    finally:
        stop.set()
        for one in (*clients, *others):
            one.join()
    assert broken(clients) == []
    (survivor,) = before & {client.replicas[-1] for client in clients}
    for client in clients:
        if homes[client.name] == survivor:
            assert (client.lost, client.cut, set(client.replicas)) == (0, 0, {survivor}), client.name
        else:
            assert client.lost >= 1, client.name
            assert client.replicas[-1] not in before, client.name
    assert set(plain) == {expected}


def test_a_rolling_update_drops_no_stream(
    command: RayCommand, turn: Path, address: str, bundles: tuple[Bundle, Bundle], tmp_path: Path
) -> None:
    """Each is whole, and of one bundle from its beginning to its end."""
    old, new = (text_of(bundle, TOKENS) for bundle in bundles)
    texts, stop, dropped = list[str](), threading.Event(), list[object]()

    def stream_on() -> None:
        while not stop.is_set():
            told = ask_again(address, {"prompt": PROMPT, "max_tokens": TOKENS})
            texts.append(told.text)
            if not told.is_whole:
                dropped.append(told)

    streams = [threading.Thread(target=stream_on) for _ in range(2)]
    for one in streams:
        one.start()
    try:
        wait_for(lambda: texts)
        cluster = re.search(r"Ray cluster (127\.0\.0\.1:\d+)", command.said)
        assert cluster is not None
        update = RayCommand(
            turn, tmp_path / "update", "serve", f"m={bundles[1].path}", "--ray", "--address", cluster.group(1), *REPLICAS
        )
        assert update.finished() == 0, update.said
        count = len(texts)
        wait_for(lambda: len(texts) >= count + 6)
    finally:
        stop.set()
        for one in streams:
            one.join()
    assert dropped == []
    assert set(texts) == {old, new}
    assert set(texts[-2:]) == {new}
    assert address in update.said


def test_it_ends_when_it_is_told_to(command: RayCommand) -> None:
    """With all that it started."""
    started = command.processes("")
    command.process.terminate()
    assert command.finished() == 0, command.said
    wait_for(lambda: not any(map(is_there, started)))


def wait_for(holds: Callable[[], object]) -> object:
    """What holds, once it does."""
    last = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < last
        time.sleep(0.05)
    return found


def broken(clients: list[SessionClient]) -> list[object]:
    """What went wrong with any of them."""
    return [wrong for client in clients for wrong in client.wrong]


def ask_on(address: str, texts: list[str], stop: threading.Event) -> None:
    """Requests without a session: whole answers, however often they have to be asked for."""
    while not stop.is_set():
        told = ask_again(address, {"prompt": PROMPT, "max_tokens": 24})
        if told.is_whole:
            texts.append(told.text)


def text_of(bundle: Bundle, tokens: int) -> str:
    """After the prompt."""
    return "".join(load(bundle, threads=1).generate(PROMPT, max_new_tokens=tokens, temperature=0))


def turns_of(bundle: Bundle, names: list[str]) -> dict[str, list[str]]:
    """The texts of the turns of sessions, each alone."""
    model = load(bundle, threads=1)
    found = dict[str, list[str]]()
    with SessionStore(model, 1 << 26) as store, Service(model, slots=1, store=store) as service:
        for name in names:
            found[name] = [
                "".join(event.text for event in service.submit(said(name, turn), session=name, max_new_tokens=8, temperature=0))
                for turn in range(50)
            ]
    return found
