"""What a decode step of several sequences takes, and which of them had better leave it for a call of their own.

In a step `a` sequences append a token each and read the weights once: it takes C(a) seconds, so that a token of it is worth
C(a) / a. A draft of n tokens for one of them is a call for that one alone, K(1 + n) (`CallCosts`). If some leave the step with
drafts, that is expected to save

    C(a) - C(a - how many leave) + the sum over those that leave of: C(a) / a * (s * tokens expected to come - W) - K(1 + n)

seconds. W are the tokens that a sequence is late by when it goes back to the step: it falls out of its slot's phase, and waits
for it, half a period on average. s < 1 as those drafts are chosen that promise most, and promise too much. Of one sequence
C(1) is K(1), W is 0 and s is 1: what it saves is then what `best_draft` says of a session. With more sequences a token is
worth less and less, and no draft pays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .costs import CallCosts
from .terms import Terms, alone

_ROW_SHARE = 0.25
"""What one more sequence adds to a step of one, until that is measured (docs/performance.md)."""
_BELIEVED = 0.7
"""s: of the tokens that drafts of sequences among others promise, the share that is counted on."""
_LEAST_RATE = 0.05
"""Weight of the newest step in what is known: steps of a period differ."""
_LARGEST_RATIO = 4.0
"""By which one step may be off, and be believed: the machine may have done something else."""


class StepCosts:
    """Learns what steps of a batch take, and says when drafts pay in it.

    Args:
        calls: costs of calls for one sequence.
        period: steps after which a phase of the batch's slots comes again.
    """

    def __init__(self, calls: CallCosts, period: int) -> None:
        self.calls, self._late = calls, (period - 1) / 2
        self._known: dict[int, float] = {}
        self._timed: dict[int, int] = {}

    def alone(self, position: int, tokens: int, seconds: float) -> None:
        """A call for one sequence, of so many tokens from a position on, took so long."""
        self.calls.learn(position, tokens, seconds)

    def together(self, positions: npt.NDArray[np.int64], seconds: float) -> None:
        """A step of sequences at these positions took so long."""
        count = len(positions)
        if count == 1:
            self.calls.learn(int(positions[0]), 1, seconds)
        self._timed[count] = self._timed.get(count, 0) + 1
        known = self._known.setdefault(count, seconds)
        believed = min(max(seconds, known / _LARGEST_RATIO), known * _LARGEST_RATIO)
        self._known[count] += (believed - known) * max(1 / self._timed[count], _LEAST_RATE)
        if not self.calls.is_timed:  # calls of one can't be told from other machines' yet
            self.calls.learn(int(positions[0]), 1, self.seconds(1))

    def seconds(self, count: int) -> float:
        """C: that a step of so many sequences is expected to take; between two counts that were timed, on a line."""
        known = self._known
        if count in known or not count:
            return known.get(count, 0.0)
        below = max((one for one in known if one < count), default=None)
        above = min((one for one in known if one > count), default=None)
        if below is not None and above is not None:
            return known[below] + (known[above] - known[below]) * (count - below) / (above - below)
        timed = below or above
        assert timed is not None, "no step was timed yet"
        return known[timed] * _expected(count) / _expected(timed)

    @property
    def is_timed(self) -> bool:
        """Whether anything is known of steps yet."""
        return bool(self._known)

    def token(self, count: int) -> float:
        """Seconds that a token takes in a step of so many sequences."""
        return self.calls.token if count == 1 else self.seconds(count) / count

    def terms(self, count: int, position: int, is_in_phase: bool) -> Terms:
        """Of a sequence at a position, in a step of so many; `spared` is its share of the step, as if all left it."""
        if count == 1:
            return alone(self.calls, position)
        token = self.token(count)
        believed = _BELIEVED * token
        return Terms(lambda place: believed, token * (1 - self._late * is_in_phase), believed)

    def leaving(self, count: int, gains: Sequence[float]) -> list[int]:
        """Which had better leave a step of so many, as places among those that would gain if all left it.

        Args:
            count: sequences of the step.
            gains: what a draft of each is expected to save if its share of the step is spared, in seconds.
        """
        if count == 1:
            return [place for place, gain in enumerate(gains) if gain > 0]
        share, whole = self.token(count), self.seconds(count)
        best, chosen, saved = 0.0, 0, 0.0
        order = sorted(range(len(gains)), key=lambda place: -gains[place])
        for leave, place in enumerate(order, 1):
            saved += gains[place] - share
            if saved + whole - self.seconds(count - leave) > best:
                best, chosen = saved + whole - self.seconds(count - leave), leave
        return order[:chosen]


def _expected(count: int) -> float:
    """Of a step of so many, in steps of one."""
    return 1 + _ROW_SHARE * (count - 1)
