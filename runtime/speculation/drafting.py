"""How a sequence's drafts are made: by what, of what length, and what became of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from ..sampling import Sampler
from .costs import CallCosts
from .drafter import Drafter
from .lengths import Draft, DraftLengths
from .step_costs import Terms

MOST_DRAFTED = 15
"""Tokens of one draft, unless another number is given: with the one before them they are what the quickest kernels take."""

_LONGEST_REST = 64
"""Steps of a batch in which a text is asked for no draft."""


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
        most: tokens of a draft.
        undrafted: steps since the last draft, in a batch.
    """

    def __init__(self, drafting: Drafting, sampler: Sampler, most: int | None, outcome: Speculation | None = None) -> None:
        self.costs, self.drafter, self.outcome = drafting.costs, drafting.open(sampler), outcome or Speculation()
        most = drafting.most if most is None else max(min(drafting.most, most), 0)
        self.most, self.undrafted, self._rest, self._resting = most, 0, 0, 0
        self._lengths, self._known = DraftLengths(self.drafter, drafting.costs, most), 0

    def begin(self, seen: list[int]) -> None:
        """With all ids that the sequence has."""
        self.drafter.extend(seen)

    def after(self, token: int, position: int, room: int) -> list[int]:
        """What is to be checked behind a token that was drawn, and that is about to be appended at a position.

        Args:
            token: the one drawn.
            position: where it will stand.
            room: tokens that may come behind it.
        """
        self.drafter.extend([token])
        return self._lengths.draft(position, room)

    def is_resting(self, count: int) -> bool:
        """Whether to ask for no draft in this step of so many sequences: after none was found, and longer each time.

        Asking takes a share of a step, and beside more sequences there is less to be won by it.
        """
        self._resting = min(self._resting, 8 * count - 4) - 1
        return self._resting >= 0

    def among(self, seen: npt.NDArray[np.int64], token: int, room: int, terms: Callable[[], Terms]) -> Draft:
        """As `after`, for a sequence of a batch, which asks only where drafts may pay.

        Args:
            seen: all ids that the sequence has, `[T]`.
            token: the one drawn, which will stand behind them.
            room: tokens that may come behind it.
            terms: gives those on which it drafts.
        """
        self.drafter.extend([*seen[self._known :].tolist(), token][: len(seen) + 1 - self._known])
        self._known = len(seen) + 1
        draft = self._lengths.offer(len(seen), room, terms()) if self.drafter.chance else Draft([], 0.0)
        self._rest = 0 if draft.tokens else min(2 * self._rest + 1, _LONGEST_REST)
        self._resting = self._rest
        return draft

    def came(self, token: int) -> None:
        """A token that was drawn, and stands there already as it was drafted."""
        self.drafter.extend([token])
        self.outcome.accepted += 1

    def checked(self, position: int, drafted: int, seconds: float) -> None:
        """A call that appended a token at a position, and so many drafted ones behind it."""
        self.costs.learn(position, 1 + drafted, seconds)
        self.outcome.calls += 1
        self.outcome.drafted += drafted
