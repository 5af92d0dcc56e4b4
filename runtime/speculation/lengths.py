"""How many of the proposals to check in the next call."""

from __future__ import annotations

from typing import NamedTuple

from .costs import CallCosts
from .drafter import Drafter
from .step_costs import Terms

_LEAST_CHANCE = 0.1
"""That a whole draft is right, below which no longer one is looked at: a row more takes as large a part of a call."""
_LEAST_GAIN = 0.1
"""In calls of one token: chances and costs are estimates, and of many drafts the luckiest estimate is taken."""
_LONGEST_REST = 256
"""Draws between two tries of a drafter that takes time and does not pay: a text changes. Of a drafter that is known from other
texts also those before the first, as that takes the time of the whole prompt."""


class Draft(NamedTuple):
    """Tokens to check, and the seconds that doing so is expected to save; none where it would not."""

    tokens: list[int]
    gain: float


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
        self._rest, self._resting = (_LONGEST_REST if drafter.seconds else 1), 0

    def draft(self, position: int, room: int) -> list[int]:
        """The tokens to check behind the one that is appended at a position, at most `room`; none where that does not pay."""
        if self._drafter.chance < _LEAST_CHANCE:  # most tokens of most texts: no time to waste
            return []
        alone = Terms(lambda place: self._costs.seconds(place, 1), self._costs.seconds(position, 1))
        return self.offer(position, room, alone).tokens

    def offer(self, position: int, room: int, terms: Terms) -> Draft:
        """As `draft`, where a token is worth something else than a call for it alone.

        Args:
            position: of the token that is appended.
            room: tokens that may come behind it.
            terms: what it is worth.
        """
        room = min(room, self._most)
        if room < 1 or self._drafter.chance < _LEAST_CHANCE or not self._is_worth_asking(position, room, terms):
            return Draft([], 0.0)
        tokens: list[int] = []
        best, length, likely, saved = _LEAST_GAIN * terms.spared, 0, 1.0, 0.0
        for proposal in self._drafter.propose():
            likely *= proposal.chance
            if likely < _LEAST_CHANCE:
                break
            tokens.append(proposal.token)
            saved += likely * terms.worth(position + len(tokens))
            gain = saved - (self._costs.seconds(position, 1 + len(tokens)) - terms.spared)
            if gain > best:
                best, length = gain, len(tokens)
            if len(tokens) == room or (self._drafter.seconds and gain < best):
                break
            if gain + likely * terms.most * (room - len(tokens)) <= best:
                break  # it would not even if all that follow came
        return Draft(tokens[:length], best if length else 0.0)

    def _is_worth_asking(self, position: int, room: int, terms: Terms) -> bool:
        """Whether what a proposal takes can be won back; where it can't, it is tried again after a while, and a longer one."""
        if not self._drafter.seconds or self._expected_gain(position, room, terms) > 0:
            self._rest, self._resting = 1, 0
            return True
        self._resting += 1
        if self._resting < self._rest:
            return False
        self._rest, self._resting = min(self._rest * 2, _LONGEST_REST), 0
        return True

    def _expected_gain(self, position: int, room: int, terms: Terms) -> float:
        """Of the best length, in seconds, if all proposals are as likely as they were on average."""
        best, likely, saved = -1.0, 1.0, 0.0
        for length in range(1, room + 1):
            likely *= self._drafter.chance
            saved += likely * terms.worth(position + length)
            added = self._costs.seconds(position, 1 + length) - terms.spared + length * self._drafter.seconds
            best = max(best, saved - added)
        return best
