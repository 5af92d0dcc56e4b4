"""How many tokens of a prompt are appended between two decode steps."""

from __future__ import annotations

_FIRST_CHUNK = 32
_GROWTH = 1.5


class Pace:
    """Sizes of chunks that keep to a time, found by trying: a call has a cost of its own, so that time by token says little.

    A chunk that took less than the time lets the next one grow, one that took more makes it smaller by as much. A chunk is
    appended whole, so that a step can take longer than asked for by what one chunk was misjudged. One token is always appended,
    so that every prompt ends.

    Args:
        seconds: that chunks may take between two decode steps.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._size = float(_FIRST_CHUNK if seconds > 0 else 1)

    def chunk(self, spent: float) -> int:
        """Tokens for the time that is left; 0: none is."""
        if spent == 0:
            return max(int(self._size), 1)
        return max(int(self._size * (1 - spent / self.seconds)), 0) if self.seconds > 0 else 0

    def took(self, tokens: int, seconds: float) -> None:
        """A chunk took so long."""
        if seconds > self.seconds:
            self._size = max(min(tokens, self._size) * self.seconds / seconds, 1.0)
        elif tokens >= int(self._size):
            self._size *= min(_GROWTH, self.seconds / seconds if seconds else _GROWTH)
