"""The lines of a command that never ends, as they come."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Generator, Sequence
from contextlib import closing
from threading import Event, Timer

_POLL_S = 0.1


def lines(command: Sequence[str], stop: Event) -> Generator[str, None, None]:
    """Run a command and yield its lines without delay; it is killed once `stop` is set or the caller goes away."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        pending = b""
        try:
            while not stop.is_set():
                if not select.select([process.stdout], [], [], _POLL_S)[0]:
                    continue
                piece = os.read(process.stdout.fileno(), 1 << 16)
                if not piece:
                    return
                *whole, pending = (pending + piece).split(b"\n")
                yield from (line.decode(errors="replace") for line in whole)
        finally:
            process.kill()


def first_line(command: Sequence[str], patience_s: float) -> str | None:
    """The first line of such a command; None where none comes in time."""
    stop = Event()
    timer = Timer(patience_s, stop.set)
    timer.start()
    try:
        with closing(lines(command, stop)) as found:
            return next(found, None)
    finally:
        timer.cancel()
