"""A client that says just what it is told to, byte by byte, and reads only when it is told to."""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.parse import urlsplit

CRLF = b"\r\n"


class Wire:
    """A connection to a server of this machine.

    Args:
        address: as `http://127.0.0.1:8000`.
        seconds: after which reading and writing give up.
        buffer: bytes that the system takes in before they are read; None: as many as it likes.
    """

    def __init__(self, address: str, seconds: float = 10.0, buffer: int | None = None) -> None:
        place = urlsplit(address)
        self.socket = socket.socket()
        if buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(seconds)
        self.socket.connect((place.hostname or "", place.port or 80))
        self._read = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Wire:
        self.socket.sendall(data)
        return self

    def read_all(self) -> bytes:
        """Up to the end of the connection, which the server brings about."""
        while data := self.socket.recv(1 << 16):
            self._read += data
        return self._read

    def is_cut(self) -> bool:
        """Whether the server ends the connection without a word."""
        try:
            return self.read_all() == b""
        except ConnectionError:
            return True

    def read_answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer whose length is given: its status, headers and body."""
        while b"\r\n\r\n" not in self._read:
            self._more()
        head, self._read = self._read.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        length = int(headers["content-length"])
        while len(self._read) < length:
            self._more()
        body, self._read = self._read[:length], self._read[length:]
        return int(first.split()[1]), headers, body

    def _more(self) -> None:
        data = self.socket.recv(1 << 16)
        assert data, "the connection ended in the middle of an answer"
        self._read += data


def get(path: str, *headers: str) -> bytes:
    """A request."""
    return CRLF.join([f"GET {path} HTTP/1.1".encode(), b"host: x", *(line.encode() for line in headers), b"", b""])


def post(*headers: str, path: str = "/v1/completions", **fields: Any) -> bytes:
    """A request for a completion."""
    body = json.dumps({"model": "m", "prompt": "a", **fields}).encode()
    head = (f"POST {path} HTTP/1.1", "host: x", "content-type: application/json", f"content-length: {len(body)}", *headers)
    return CRLF.join([*(line.encode() for line in head), b"", body])


def ask(address: str, data: bytes, seconds: float = 10.0) -> tuple[int, bytes]:
    """The status and the body of the answer after which the server ends the connection."""
    with Wire(address, seconds) as wire:
        head, _, body = wire.send(data).read_all().partition(b"\r\n\r\n")
        return int(head.split()[1]), body
