"""When drafts are not worth the time that they take themselves."""

from __future__ import annotations

_TRIAL = 16
"""Tokens after which what was won and what was spent are compared."""
_SHORTEST, _LONGEST = 64, 512
"""Tokens of a rest: twice as many after each trial in vain."""


class Rest:
    """Lets a sequence draw some tokens without drafts where those of the last ones saved less time than they took.

    Guesses take microseconds, which are much where a step takes few; what checks them takes the model's time. Both are taken
    off what the tokens that came would have taken alone. A text changes, so drafts are tried again, ever more seldom.
    """

    def __init__(self) -> None:
        self._saved, self._tokens = 0.0, 0
        self._left, self._length = 0, _SHORTEST

    def takes(self) -> bool:
        """Whether the next token is drawn without drafts."""
        self._left -= 1
        return self._left >= 0

    def note(self, saved: float) -> None:
        """What the drafts of a call saved, in seconds: less than 0 if they cost more."""
        self._saved += saved
        self._tokens += 1
        if self._tokens < _TRIAL:
            return
        if self._saved > 0:
            self._length = _SHORTEST
        else:
            self._left, self._length = self._length, min(2 * self._length, _LONGEST)
        self._saved, self._tokens = 0.0, 0
