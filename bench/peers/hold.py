"""Having the machine to oneself while peers run, by whatever means the machine has for it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from ...errors import ConfigError


@contextmanager
def held(command: str | None) -> Iterator[None]:
    """Run a shell command around the block: it prints a line once the machine is free, and gives it back when its input ends.

    For example `flock /var/lock/bench sh -c 'echo; cat'`.

    Raises:
        ConfigError: it ends without a line.
    """
    if command is None:
        yield
        return
    with subprocess.Popen(command, shell=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        if not holder.stdout.readline():
            raise ConfigError(f"--hold {command!r} ended with {holder.wait()} and printed no line; it prints one, then reads")
        try:
            yield
        finally:
            holder.stdin.close()
