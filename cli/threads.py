"""The threads of a command: it has its process for itself, so all its engines can share one pool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..bundle import Bundle


class _Process:
    is_own = False


def own_process() -> None:
    """Say that this process runs a foveal command and nothing else; tests and other programs never do."""
    _Process.is_own = True


def pool_threads(bundle: Path | Bundle, target: str, threads: int | None, native: bool | None = None) -> int | None:
    """Make the shared pool, of `threads` or of the number that decodes `bundle` fastest; returns what to load with.

    `bundle` is a directory, or one that was opened: then nothing of it is hashed twice. Other engines than those of `cpu` have
    no threads. `native` as it will be loaded with.
    """
    if not _Process.is_own or target != "cpu":
        return threads
    from ..runtime.model import threads_of

    count = threads_of(bundle, native=native) if threads is None else threads
    share_pool(count)
    return count


def share_pool(threads: int) -> None:
    """Make the shared pool of so many threads, where this process is a command's."""
    if _Process.is_own:
        from ..runtime import share_threads

        share_threads(threads)
