"""Runs what a page tells people to type, as they would: statement by statement in bash, Python in one namespace.

`foveal` is a function of that shell which hands its arguments to this process, where the libraries are loaded already; so a
command takes what it takes, and not a second more for its imports. Servers are processes of their own.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from page_commands import Typed
from serve_process import serving

from foveal import cli

SMALLER = {
    "bench": ("--prompt-tokens", "8", "--new-tokens", "8"),
    "bench sweep": ("--new-tokens", "4", "--rounds", "2"),
    "bench diff": (),
    "bisect": ("--limit", "2"),
    "calibrate": ("--max-tokens", "4096"),
    "eval": ("--limit", "2"),
    "train": ("--steps", "2", "--batch", "1", "--dim", "16", "--heads", "1", "--context", "64"),
}
"""Options that are put behind a command's own, so that it does the same with less."""
EXITS = {"foveal compare": (0, 2), "foveal check": (0, 3), "foveal bench": (0, 5)}
"""Exit codes with which a command says something on a machine without a GPU, or of bundles that differ."""
ADDRESS = "127.0.0.1:8000"
"""Where pages expect a server; it is at another port here."""

_SHELL = """
foveal() {
    printf '%s\\0' "$PWD" "$@" > "$FOVEAL_ASKED"; printf '\\036' > "$FOVEAL_ASKED"
    local code; read -r code < "$FOVEAL_ANSWERED"; return "$code"
}
"""
_END = b"\x1e"


class PageRunner:
    """One page in one directory."""

    def __init__(self, directory: Path, servers: contextlib.ExitStack) -> None:
        self._directory, self._servers = directory, servers
        self._names: dict[str, object] = {"__name__": "page"}
        self._set = ""
        self._address = ADDRESS
        self._asked, self._answered = directory / ".asked", directory / ".answered"
        for pipe in (self._asked, self._answered):
            os.mkfifo(pipe)

    def run(self, command: Typed) -> None:
        """Run one; it must succeed."""
        text = command.text.replace(ADDRESS, self._address)
        if command.language == "python":
            exec(compile(text, f"{command.page}:{command.line}", "exec"), self._names)
            return
        code, expected = self._shell(text), next((codes for verb, codes in EXITS.items() if text.startswith(verb)), (0,))
        assert code in expected, f"{command}\nexit code {code}"

    def _shell(self, text: str) -> int:
        """One statement in bash, behind the variables that were set before it."""
        if text.partition("=")[0].isidentifier():
            self._set += f"{text}\n"
        environment = {**os.environ, "FOVEAL_ASKED": str(self._asked), "FOVEAL_ANSWERED": str(self._answered)}
        with (
            _held(self._asked) as asked,
            _held(self._answered) as answered,
            subprocess.Popen(["bash", "-c", f"{_SHELL}{self._set}{text}"], env=environment, cwd=self._directory) as bash,
        ):
            try:
                for folder, *arguments in _requests(asked, bash):
                    with contextlib.chdir(folder):
                        code = self._foveal(arguments)
                    os.write(answered, f"{code}\n".encode())
            finally:
                bash.kill()  # it waits for an answer that does not come, if this failed
        return bash.returncode

    def _foveal(self, arguments: list[str]) -> int:
        if arguments[0] != "serve":
            smaller = SMALLER.get(" ".join(arguments[:2]), SMALLER.get(arguments[0], ()))
            return command_line([*arguments, *smaller])
        self._servers.close()
        self._address = self._servers.enter_context(serving(*arguments[1:])).address.removeprefix("http://")
        return 0


def command_line(arguments: list[str]) -> int:
    """`foveal` with arguments, in this process, which it does not take for its own; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["foveal", *arguments])
        patch.setattr(cli, "own_process", lambda: None)  # else all tests would share a pool of threads
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


@contextlib.contextmanager
def _held(pipe: Path) -> Iterator[int]:
    """Open for both, so that nobody waits for the other side, or sees it end between two commands."""
    descriptor = os.open(pipe, os.O_RDWR)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _requests(pipe: int, bash: subprocess.Popen[bytes]) -> Iterator[list[str]]:
    """What bash asks for, until it ends."""
    read = b""
    while True:
        ended = bash.poll() is not None
        if select.select([pipe], [], [], 0 if ended else 0.02)[0]:
            read += os.read(pipe, 65536)
        elif ended:
            return
        while _END in read:
            request, _, read = read.partition(_END)
            yield request.decode().removesuffix("\0").split("\0")
