"""How often guesses of several kinds were right."""

from __future__ import annotations

from collections.abc import Sequence

_MEMORY = 128
"""Guesses of a kind after which older ones begin to count less: a text changes."""
_WEIGHT = 4
"""Guesses that the expectation counts as."""


class Chances:
    """Learns, kind by kind, how often guesses are right.

    Args:
        expected: of each kind, before any was made, of (0, 1).
    """

    def __init__(self, expected: Sequence[float]) -> None:
        self._right, self._made = [_WEIGHT * chance for chance in expected], [float(_WEIGHT)] * len(expected)

    def __getitem__(self, kind: int) -> float:
        return self._right[kind] / self._made[kind]

    def learn(self, kind: int, is_right: bool) -> None:
        """Of one guess."""
        self._right[kind] += is_right
        self._made[kind] += 1
        if self._made[kind] > _MEMORY:
            self._right[kind] /= 2
            self._made[kind] /= 2
