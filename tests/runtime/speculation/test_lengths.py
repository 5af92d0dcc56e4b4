"""How long drafts are: as long as each further token is expected to save more than it adds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from foveal.runtime.speculation.account import Account
from foveal.runtime.speculation.costs import CallCosts
from foveal.runtime.speculation.drafter import Proposal
from foveal.runtime.speculation.lengths import best_draft
from foveal.runtime.speculation.terms import alone


class Costs(CallCosts):
    """1 for a call, `row` for each further token, and `firing` where a multiple of 8 is among them."""

    def __init__(self, row: float, firing: float = 0.0) -> None:
        super().__init__([])
        self.row, self.firing = row, firing

    def seconds(self, position: int, tokens: int) -> float:
        """As told."""
        fires = any(token % 8 == 0 for token in range(position, position + tokens))
        return 1 + self.row * (tokens - 1) + self.firing * fires


class Even:
    """Proposals that are all as likely; each takes some seconds."""

    def __init__(self, chance: float, seconds: float = 0.0) -> None:
        self.chance, self.seconds, self.made = chance, seconds, 0
        self.account, self.is_silent = Account(), False

    def catch_up(self, tokens: npt.NDArray[np.int64]) -> None:
        """Nothing."""

    def extend(self, token: int) -> None:
        """Nothing."""

    def propose(self) -> Iterator[Proposal]:
        """Without end."""
        while True:
            self.made += 1
            yield Proposal(5, self.chance)

    def close(self) -> None:
        """Nothing."""


def length(drafter: Even, costs: Costs, position: int = 1, room: int = 15) -> int:
    """Of the draft."""
    return len(best_draft(drafter, costs, position, room, alone(costs, position)).tokens)


def test_likely_tokens_are_drafted_further() -> None:
    """Where a row adds 0.3 of a call, tokens are checked as long as the chance of all of them is above that."""
    assert length(Even(0.2), Costs(0.3)) == 0
    assert length(Even(0.5), Costs(0.3)) == 1
    assert length(Even(0.8), Costs(0.3)) == 5
    assert length(Even(0.99), Costs(0.3)) == 15


def test_there_is_room_for_no_more() -> None:
    """In the context, in what is asked for, or in a draft."""
    assert [length(Even(0.99), Costs(0.1), room=room) for room in (1, 3, 15)] == [1, 3, 15]


def test_its_gain_and_what_it_costs_are_told() -> None:
    """In seconds: what its tokens are expected to save beyond what they add to the call."""
    drafter, costs = Even(0.9), Costs(0.25)
    draft = best_draft(drafter, costs, 1, 3, alone(costs, 1))
    assert len(draft.tokens) == 3
    assert draft.cost == pytest.approx(0.75)
    assert draft.gain == pytest.approx(0.9 + 0.9**2 + 0.9**3 - 0.75)


def test_a_draft_ends_before_a_firing_that_it_may_not_reach() -> None:
    """And goes beyond it where it is likely to: the step that is spared there is the dearest."""
    assert length(Even(0.7), Costs(0.1, firing=8.0), position=5) == 2
    assert length(Even(0.99), Costs(0.1, firing=8.0), position=5) == 15
    assert length(Even(0.7), Costs(0.1, firing=8.0), position=8) > 2  # it fires anyway


def test_proposals_that_pay_for_themselves_are_made() -> None:
    """As long as the next is expected to save more than it takes."""
    drafter = Even(0.9, seconds=0.1)
    assert 1 <= length(drafter, Costs(0.1)) <= drafter.made <= 15
