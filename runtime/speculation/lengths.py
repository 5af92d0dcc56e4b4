"""How many of the proposals to check in the next call."""

from __future__ import annotations

from typing import NamedTuple

from .costs import CallCosts
from .drafter import Drafter
from .terms import Terms

_LEAST_CHANCE = 0.1
"""That a whole draft is right, below which no longer one is looked at: a row more takes as large a part of a call."""
_LEAST_GAIN = 0.1
"""In calls of one token: chances and costs are estimates, and of many drafts the luckiest estimate is taken."""


class Draft(NamedTuple):
    """Tokens to check, none where that does not pay; the seconds that it is expected to save, and those that it takes."""

    tokens: list[int]
    gain: float = 0.0
    cost: float = 0.0


NONE = Draft([])


def best_draft(drafter: Drafter, costs: CallCosts, position: int, room: int, terms: Terms) -> Draft:
    """The draft that is expected to save the most time.

    A token that is right saves the step it would have taken, which is dearer where a coarse stage fires. The call takes longer
    by what its rows add, and by every firing that it reaches: so drafts end before a firing that is not likely to be of use.

    Args:
        drafter: that proposes.
        costs: of calls.
        position: of the token that is appended.
        room: tokens that may come behind it.
        terms: what they are worth.
    """
    tokens: list[int] = []
    length, gain, cost = 0, _LEAST_GAIN * terms.spared, 0.0
    likely, saved = 1.0, 0.0
    for proposal in drafter.propose():
        likely *= proposal.chance
        if likely < _LEAST_CHANCE:
            break
        tokens.append(proposal.token)
        saved += likely * terms.worth(position + len(tokens))
        added = costs.seconds(position, 1 + len(tokens)) - terms.spared
        if saved - added > gain:
            length, gain, cost = len(tokens), saved - added, added
        if len(tokens) == room or (drafter.seconds and saved - added < gain):
            break
        if saved - added + likely * terms.most * (room - len(tokens)) <= gain:
            break  # it would not even if all that follow came
    return Draft(tokens[:length], gain, cost) if length else NONE
