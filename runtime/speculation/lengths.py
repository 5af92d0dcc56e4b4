"""How many of the proposals to check in the next call."""

from __future__ import annotations

from .costs import CallCosts
from .drafter import Drafter

_LEAST_CHANCE = 0.1
"""That a whole draft is right, below which no longer one is looked at: a row more takes as large a part of a call."""
_LONGEST_REST = 256
"""Draws between two tries of a drafter that takes time and does not pay: a text changes."""


class DraftLengths:
    """Chooses drafts that are expected to save the most time.

    A token that is right saves the step it would have taken, which is dearer where a coarse stage fires. The call takes longer
    by what its rows add, and by every firing that it reaches: so drafts end before a firing that is not likely to be of use.

    Args:
        drafter: that proposes.
        costs: of calls.
        most: tokens of a draft.
    """

    def __init__(self, drafter: Drafter, costs: CallCosts, most: int) -> None:
        self._drafter, self._costs, self._most = drafter, costs, most
        self._rest, self._resting = 1, 0

    def draft(self, position: int, room: int) -> list[int]:
        """The tokens to check behind the one that is appended at a position, at most `room`; none where that does not pay."""
        room = min(room, self._most)
        if room < 1 or self._drafter.chance < _LEAST_CHANCE or not self._is_worth_asking(position, room):
            return []
        seconds = self._costs.seconds
        tokens: list[int] = []
        best, length, likely, saved, alone = 0.0, 0, 1.0, 0.0, 0.0
        for proposal in self._drafter.propose():
            likely *= proposal.chance
            if likely < _LEAST_CHANCE:
                break
            alone = alone or seconds(position, 1)
            tokens.append(proposal.token)
            saved += likely * seconds(position + len(tokens), 1)
            gain = saved - (seconds(position, 1 + len(tokens)) - alone)
            if gain > best:
                best, length = gain, len(tokens)
            if len(tokens) == room or (self._drafter.seconds and gain < best):
                break
        return tokens[:length]

    def _is_worth_asking(self, position: int, room: int) -> bool:
        """Whether what a proposal takes can be won back; where it can't, it is tried again after a while, and a longer one."""
        if not self._drafter.seconds or self._expected_gain(position, room) > 0:
            self._rest, self._resting = 1, 0
            return True
        self._resting += 1
        if self._resting < self._rest:
            return False
        self._rest, self._resting = min(self._rest * 2, _LONGEST_REST), 0
        return True

    def _expected_gain(self, position: int, room: int) -> float:
        """Of the best length, in seconds, if all proposals are as likely as they were on average."""
        best, likely, saved, alone = -1.0, 1.0, 0.0, self._costs.seconds(position, 1)
        for length in range(1, room + 1):
            likely *= self._drafter.chance
            saved += likely * self._costs.seconds(position + length, 1)
            added = self._costs.seconds(position, 1 + length) - alone + length * self._drafter.seconds
            best = max(best, saved - added)
        return best
