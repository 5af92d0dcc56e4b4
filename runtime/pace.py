"""How many tokens of a prompt are appended between two decode steps."""

from __future__ import annotations

_FIRST_CHUNK = 32
"""Tokens of a first chunk, before anything was measured."""
_NEW_SHARE = 0.5
"""Of the latest measurement in the estimate: prompts take longer per token the longer they are."""


class Pace:
    """Sizes of chunks that keep to a time, from how long the ones before took.

    A chunk is appended whole, so a step can take longer than asked for by what one chunk was misjudged; one token is always
    appended, so that every prompt ends.

    Args:
        seconds: that chunks may take between two decode steps.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._per_token: float | None = None

    def chunk(self, spent: float) -> int:
        """Tokens for the time that is left; 0: none is."""
        left = self.seconds - spent
        if self._per_token is None:
            return _FIRST_CHUNK if spent == 0 else 0
        fitting = int(left / self._per_token)
        return max(fitting, 1) if spent == 0 else max(fitting, 0)

    def took(self, tokens: int, seconds: float) -> None:
        """A chunk took so long."""
        measured = seconds / tokens
        before = measured if self._per_token is None else self._per_token
        self._per_token = _NEW_SHARE * measured + (1 - _NEW_SHARE) * before
