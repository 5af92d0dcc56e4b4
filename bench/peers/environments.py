"""An environment for each peer, made once: its wheels are kept, as some take minutes to compile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from ...files import write_atomically
from .peers import Peer


class Unavailable(Exception):
    """A peer that can't take part; its text is the reason."""


def python_of(peer: Peer, directory: Path) -> Path:
    """The interpreter that has the peer's library, which is installed if it is not yet.

    Raises:
        Unavailable: pip can't install it.
    """
    if peer.python is not None:
        return peer.python
    if peer.requirements is None:
        raise TypeError(f"{peer.name} has neither an interpreter nor requirements")
    place = directory / "environments" / peer.requirements.stem
    python, installed = place / "bin" / "python", place / "installed.txt"
    wanted = peer.requirements.read_bytes()
    if not installed.exists() or installed.read_bytes() != wanted:
        wheels = directory / "wheels"
        given = ["--find-links", str(wheels), "-r", str(peer.requirements)]
        wheels.mkdir(parents=True, exist_ok=True)
        _run(sys.executable, "-m", "venv", "--clear", str(place))
        _run(python, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(wheels), *given)
        _run(python, "-m", "pip", "install", "--no-deps", "--no-index", *given)
        write_atomically(installed, wanted)  # last: an environment without it is made again
    return python


def versions_of(peer: Peer, python: Path) -> dict[str, str]:
    """Of its libraries, by its program.

    Raises:
        Unavailable: the program does not run, as where a library can't be imported.
    """
    return msgspec.json.decode(_run(python, str(peer.program), "versions"), type=dict[str, str])


def _run(python: str | Path, *arguments: str) -> str:
    done = subprocess.run([str(python), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(reason_of(done.stderr or done.stdout, done.returncode))
    return done.stdout


def reason_of(said: str, code: int | None) -> str:
    """The line that says why a process ended: the last, or pip's last error."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or [f"it ended with {code} and said nothing"])[-1]
