"""Commands that run on Ray, in processes of their own: what they start can be killed, and is gone at the end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from foveal.locks import hold

PATIENCE = 120.0
"""Seconds that anything may take on a machine that does other things, too."""


class RayCommand:
    """`foveal ARGUMENTS`, begun.

    Args:
        folder: for Ray's sockets, whose paths are short, and its logs. Its name is the cluster's token, which Ray would keep
            in the user's home.
        output: where it writes.
        arguments: of the command.
    """

    def __init__(self, folder: Path, output: Path, *arguments: object) -> None:
        self._output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "foveal.cli", *map(str, arguments)],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "RAY_TMPDIR": str(folder), "RAY_AUTH_TOKEN": folder.name * 8},
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """What it wrote so far."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Until something holds; fails if the command ends before, or after a long time."""
        last = time.monotonic() + PATIENCE
        while not holds():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < last, self.said
            time.sleep(0.05)

    def processes(self, title: str) -> list[int]:
        """Of all that it started, those whose title begins so."""
        return [one for one in descendants(self.process.pid) if title_of(one).startswith(title)]

    def finished(self) -> int:
        """Its exit code, once it has ended by itself."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"it did not end: {self.said}") from None

    def end(self, everything: set[int] | None = None) -> None:
        """Tell it to end, as one would; what is still there then is killed."""
        started = {*descendants(self.process.pid), *(everything or ())}
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
        vanish(started)


def vanish(started: set[int]) -> None:
    """Wait a little until processes are gone, and kill the rest."""
    last = time.monotonic() + 3
    while any(map(is_there, started)) and time.monotonic() < last:
        time.sleep(0.05)
    for one in filter(is_there, started):
        os.kill(one, signal.SIGKILL)


def is_there(process: int) -> bool:
    """Whether a process of Ray's runs under a number; what has ended and nobody asked for is none."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def descendants(process: int) -> set[int]:
    """Numbers of what a process started, and of what that started, and so on."""
    children = dict[int, list[int]]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found, left = set[int](), [process]
    while left:
        new = children.get(left.pop(), [])
        found.update(new)
        left.extend(new)
    return found


def title_of(process: int) -> str:
    """How a process calls itself."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@contextmanager
def ray_turn(shared: Path) -> Iterator[Path]:
    """One cluster at a time on this machine, whichever of the test processes it is of; gives a folder for it."""
    held = hold(shared / "ray.lock")
    assert held is not None
    folder = Path(tempfile.mkdtemp(prefix="fr", dir="/tmp"))  # a socket's path has at most 107 bytes
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held.descriptor)
