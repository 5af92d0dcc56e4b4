"""A `foveal serve` of its own process, for as long as something is measured."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from socket import socket
from typing import Any, NamedTuple

from ...errors import FovealError

_START_SECONDS = 60.0


class Server(NamedTuple):
    """On this machine."""

    port: int
    process: subprocess.Popen[bytes]

    def status(self) -> dict[str, Any]:
        """What `/status` says of its first model."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)["models"][0]
        return found

    def resident_bytes(self) -> int:
        """Memory that it holds now (Linux)."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * 4096


@contextmanager
def serving(bundle: Path, options: Sequence[str]) -> Iterator[Server]:
    """Start one, wait until it is ready, and end it.

    Raises:
        FovealError: it ended, or was not ready in a minute.
    """
    port = _free_port()
    command = [sys.executable, "-m", "foveal.cli", "serve", str(bundle), "--port", str(port), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(port, process, command)
        yield Server(port, process)
    finally:
        process.terminate()
        process.wait(30)


def _free_port() -> int:
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
    return found


def _wait(port: int, process: subprocess.Popen[bytes], command: Sequence[str]) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise FovealError(f"the server ended with exit code {process.returncode}; see what it says: {' '.join(command)}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise FovealError(f"the server was not ready in {_START_SECONDS:.0f} s: {' '.join(command)}")
