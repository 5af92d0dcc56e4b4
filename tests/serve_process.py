"""`foveal serve` in processes of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SERVE = (sys.executable, "-m", "foveal.cli", "serve")


@dataclass
class Server:
    """One that runs. What it writes is read all the time, as it waits for whoever reads its log.

    Attributes:
        address: as `http://127.0.0.1:8000`.
        lines: that it wrote.
    """

    process: subprocess.Popen[str]
    address: str = ""
    lines: list[str] = field(default_factory=list)
    reader: threading.Thread | None = None

    def end(self, signal: int, seconds: float = 20.0) -> int:
        """Tell it to, and wait; its exit code."""
        self.process.send_signal(signal)
        code = self.process.wait(seconds)
        assert self.reader is not None
        self.reader.join(seconds)
        return code

    @property
    def log(self) -> list[dict[str, Any]]:
        """What it wrote once it served: nothing but lines of JSON."""
        begun = next(index for index, line in enumerate(self.lines) if self.address in line)
        return [json.loads(line) for line in self.lines[begun + 1 :]]


@contextmanager
def serving(*arguments: str | Path, **environment: str) -> Iterator[Server]:
    """A server on any port that is free, killed at the end if it still runs."""
    line = [*_SERVE, *map(str, arguments), "--port", "0"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}) as process:
        server, serves = Server(process), threading.Event()

        def read() -> None:
            assert process.stderr is not None
            for line in process.stderr:
                server.lines.append(line)
                if not server.address and (found := re.search(r"serves at (http://[^;\s]+)", line)):
                    server.address = found.group(1)
                    serves.set()
            serves.set()

        server.reader = threading.Thread(target=read)
        server.reader.start()
        try:
            assert serves.wait(60)
            assert server.address, server.lines
            yield server
        finally:
            process.kill()
            server.reader.join(10)


def refused(*arguments: str | Path) -> str:
    """What is said by a server that can't begin, in one line; its exit code is 1."""
    found = subprocess.run([*_SERVE, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 1, found.stderr
    assert found.stderr.count("\n") == 1, found.stderr
    return found.stderr
