"""How a sequence's drafts are made: by what, of what length, and what became of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from ..sampling import Sampler
from .account import TRIAL
from .costs import CallCosts
from .drafter import Drafter
from .lengths import NONE, Draft, best_draft
from .terms import Terms

MOST_DRAFTED = 15
"""Tokens of one draft, unless another number is given: with the one before them they are what the quickest kernels take."""
_SWITCH_SECONDS = 40e-6
"""That the tokens after a look take longer in all: other code ran, and the caches have to be filled again."""


@dataclass(frozen=True)
class Drafting:
    """What a request says of drafts.

    Attributes:
        open: a drafter for a sequence, by what its tokens are drawn with.
        costs: of calls of the model that checks.
        most: tokens of one draft.
    """

    open: Callable[[Sampler], Drafter]
    costs: CallCosts
    most: int = MOST_DRAFTED


class Speculation(msgspec.Struct):
    """What drafts came to, in one text.

    Attributes:
        calls: of the model, behind the prompt's.
        drafted: tokens that were proposed and checked.
        accepted: of these, those that came.
    """

    calls: int = 0
    drafted: int = 0
    accepted: int = 0

    def __add__(self, other: Speculation) -> Speculation:
        return Speculation(self.calls + other.calls, self.drafted + other.drafted, self.accepted + other.accepted)

    @property
    def acceptance(self) -> float | None:
        """The share of checked tokens that came; None if none was checked."""
        return self.accepted / self.drafted if self.drafted else None

    @property
    def tokens_per_call(self) -> float | None:
        """Tokens appended for each call; None without any."""
        return (self.calls + self.accepted) / self.calls if self.calls else None


class Drafts:
    """The drafts of one sequence.

    Args:
        drafting: how they are made.
        sampler: of the sequence.
        most: tokens that the model can take back; None: all.
        outcome: where it is counted what became of them; None: anew.

    Attributes:
        account: that says when they rest.
        known: ids of the sequence that the drafter has.
        costs: of calls for the sequence alone.
    """

    def __init__(self, drafting: Drafting, sampler: Sampler, most: int | None, outcome: Speculation | None = None) -> None:
        self.drafter, self.outcome = drafting.open(sampler), outcome or Speculation()
        self.account, self.costs, self.known = self.drafter.account, drafting.costs, 0
        self._won = 0.0
        """By the newest draft, so far."""
        self._most = drafting.most if most is None else max(min(drafting.most, most), 0)

    def wake(self, seen: npt.NDArray[np.int64], unit: float) -> bool:
        """Begin a trial with all ids that the sequence has; whether it is not over yet.

        Args:
            seen: the ids, `[T]`.
            unit: seconds that a token takes without drafts, on average.
        """
        began = time.perf_counter()
        self.drafter.catch_up(seen[self.known :])
        self.known, took = len(seen), (time.perf_counter() - began + _SWITCH_SECONDS) / unit
        self.account.begin(took, self.drafter.is_silent and self.costs.is_timed)  # a trial tells what a token takes
        return not self.account.rest

    def draft(self, token: int, room: int, unit: float, terms: Callable[[], Terms]) -> Draft:
        """What may be checked behind a token that was drawn, and that is about to be appended.

        Args:
            token: the one drawn, which will stand behind those that are known.
            room: tokens that may come behind it.
            unit: seconds that a token takes without drafts, on average.
            terms: gives those on which it drafts.
        """
        began, drafter = time.perf_counter(), self.drafter
        drafter.extend(token)
        self.known, room = self.known + 1, min(room, self._most)
        self.account.note(self._won, drafter.is_silent)
        may_pay = not (self.account.rest or drafter.is_silent) and room > 0
        found = best_draft(drafter, self.costs, self.known - 1, room, terms()) if may_pay else NONE
        took = (time.perf_counter() - began) / unit
        self._won = -min(took, TRIAL + self._most * drafter.seconds / unit)  # more would be the fault of another program
        return found

    def checks(self, cost: float) -> None:
        """A draft is checked, which takes so many tokens' time."""
        self._won -= cost

    def pause(self) -> None:
        """No draft pays for now, whatever it is."""
        self.account.note(self._won, is_silent=True)
        self._won = 0.0

    def appended(self, drafted: int) -> None:
        """A call appended a token, and so many drafted ones behind it."""
        self.outcome.calls += 1
        self.outcome.drafted += drafted
        if self.account.rest:
            self.account.rested(1)

    def came(self, token: int, worth: float) -> None:
        """A token that was drawn stands there already, as it was drafted, and is worth so many tokens' time."""
        self.drafter.extend(token)
        self.known += 1
        self.outcome.accepted += 1
        self._won += worth

    def rested(self, tokens: int) -> None:
        """So many were appended without drafts."""
        self.outcome.calls += tokens
        self.account.rested(tokens)
