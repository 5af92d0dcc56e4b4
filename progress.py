"""How anything that takes a while tells whoever watches."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, the steps done and the steps in all."""


def silent(_doing: str, _done: int, _steps: int) -> None:
    """The progress that nobody watches."""
