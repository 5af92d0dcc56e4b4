"""How anything that takes a while tells whoever watches."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, the steps done and the steps in all."""


def silent(_doing: str, _done: int, _steps: int) -> None:
    """The progress that nobody watches."""


def left(seconds: float, done: int, steps: int) -> str:
    """How long the rest of equal steps will take, as `", about 1 min 50 s left"`; nothing until two of them say."""
    if done < 2 or done >= steps:
        return ""
    minutes, rest = divmod(round(seconds / done * (steps - done)), 60)
    return f", about {f'{minutes} min ' if minutes else ''}{rest} s left"


def within(report: Progress, doing: str, done: int, steps: int) -> Progress:
    """For a part of one step: how far it is goes into the words, and the count stands still."""
    return lambda detail, part, parts: report(f"{doing}: {100 * part // parts}%, {detail}", done, steps)
