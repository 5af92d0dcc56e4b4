"""Clients of a server under faults: they try again what had not begun, and notice what is not as it should be."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

_RETRIED = (429, 500, 503)
_PATIENCE = 90.0


@dataclass
class Answered:
    """What a client was told.

    Attributes:
        status: of HTTP.
        replica: whose it is; None: of none.
        text: that came.
        data: of the last chunk, or of the error.
        is_whole: whether a stream came to its end.
        headers: of the answer.
    """

    status: int
    replica: str | None = None
    text: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    is_whole: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


def ask(address: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Answered:
    """`POST /v1/completions`, streamed.

    Raises:
        OSError, http.client.HTTPException: no answer began.
    """
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=_PATIENCE)
    try:
        sent = json.dumps({"model": "m", "stream": True, "temperature": 0, **body})
        connection.request("POST", "/v1/completions", sent, {"Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        told = Answered(answer.status, answer.getheader("x-foveal-replica"), headers=dict(answer.getheaders()))
        if answer.status != 200:
            data = answer.read()
            told.data = json.loads(data).get("error", {}) if data.startswith(b"{") else {"message": data.decode()}
            return told
        _read(answer, told)
        return told
    finally:
        connection.close()


def _read(answer: http.client.HTTPResponse, told: Answered) -> None:
    try:
        for line in answer:
            if line == b"data: [DONE]\n":
                told.is_whole = True
            elif line.startswith(b"data: "):
                told.data = json.loads(line[6:])
                told.text += "".join(one["text"] for one in told.data.get("choices", ()))
    except (OSError, http.client.HTTPException):
        return


def ask_again(address: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Answered:
    """The same, until there is an answer: what was refused or did not begin is sent again."""
    last = time.monotonic() + _PATIENCE
    while True:
        try:
            told = ask(address, body, headers)
        except (OSError, http.client.HTTPException):
            told = Answered(0)
        is_busy = told.status == 409 and told.data.get("code") == "session_busy"
        if told.status != 0 and told.status not in _RETRIED and not is_busy:
            return told
        assert time.monotonic() < last, told
        time.sleep(0.1)


class SessionClient(threading.Thread):
    """Takes turn after turn in a session, and begins anew where it is told that the session is lost.

    Args:
        address: of the server.
        name: of the session.
        expected: the text of each turn.
        stop: set when it has had enough turns.

    Attributes:
        replicas: whose answers they were, in order.
        lost: so often the session was.
        cut: streams that ended in the middle.
        wrong: what should not be.
    """

    def __init__(self, address: str, name: str, expected: list[str], stop: threading.Event) -> None:
        super().__init__(name=name)
        self.replicas, self.lost, self.cut, self.turns = list[str | None](), 0, 0, 0
        self.wrong: list[object] = []
        self._address, self._expected, self._stop_asking = address, expected, stop

    def run(self) -> None:
        """Until it is stopped, or something is wrong."""
        try:
            while not self._stop_asking.is_set() and not self.wrong:
                self._play()
        except BaseException as error:
            self.wrong.append(error)
            raise

    def _play(self) -> None:
        """From the beginning of the session, until it is full or lost."""
        position = 0
        headers = {"x-session-id": self.name}
        for turn, expected in enumerate(self._expected):
            told = self._turn(turn, position, headers)
            if told.status == 409:
                self.lost += 1
                return
            if told.status != 200 or told.text != expected:
                self.wrong.append((turn, position, told, expected))
                return
            self.turns += 1
            position = told.data["foveal"]["session"]["position"]
            if self._stop_asking.is_set():
                return
        forget(self._address, self.name)

    def _turn(self, turn: int, position: int, headers: Mapping[str, str]) -> Answered:
        """What was cut is asked again: the session is where it was, or it says that it is lost."""
        while True:
            body = {"prompt": said(self.name, turn), "session": self.name, "position": position, "max_tokens": 8}
            told = ask_again(self._address, body, headers)
            if told.status != 200 or told.is_whole:
                break
            self.cut += 1
        if told.status == 200:
            self.replicas.append(told.replica)
        if told.status == 409 and (told.data["code"], told.data["position"]) != ("session_lost", None):
            self.wrong.append(told)
        return told


def forget(address: str, session: str) -> None:
    """`DELETE` a session, whether it is there or not."""
    place = urlsplit(address)
    for _ in range(100):
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=_PATIENCE)
        try:
            connection.request("DELETE", f"/v1/sessions/{session}", headers={"x-session-id": session})
            if connection.getresponse().status in (200, 404):
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    raise AssertionError("the session can't be dropped")


def said(name: str, turn: int) -> str:
    """What a client says in a turn: no other says that."""
    return f"{name} {turn}: "


def look(address: str, path: str) -> tuple[str, Any]:
    """`GET` of a path: whose answer it is, and what it says."""
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=_PATIENCE)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return str(answer.getheader("x-foveal-replica")), json.loads(answer.read())
    finally:
        connection.close()
