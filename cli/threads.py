"""The threads of a command: it has its process for itself, so all its engines can share one pool.

They do where graphs take turns at every token. Beside native steps they don't: threads of a shared pool look for work for some
50 ms after a prompt, and take a core from the tokens that follow (docs/adr/0004).
"""

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

    There is none if a stage of `bundle` runs natively. `bundle` is a directory, or one that was opened: then nothing of it is
    hashed twice; of several the first. Other engines than those of `cpu` have no threads. `native` as it will be loaded with.
    """
    if not _Process.is_own or target != "cpu":
        return threads
    from ..runtime.model import runs_natively, threads_of

    count = threads_of(bundle, native=native) if threads is None else threads
    if not runs_natively(bundle, native):
        share_pool(count)
    return count


def share_pool(threads: int) -> None:
    """Make the shared pool of so many threads, where this process is a command's."""
    if _Process.is_own:
        from ..runtime import share_threads

        share_threads(threads)
