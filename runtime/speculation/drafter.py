"""What guesses the next tokens of one sequence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from .account import Account


class Proposal(NamedTuple):
    """A token that may come, and how likely it is to, given that all that were proposed before it do."""

    token: int
    chance: float


class Drafter(Protocol):
    """Guesses what comes next in a sequence, and learns from what did."""

    @property
    def seconds(self) -> float:
        """That one proposal takes, as measured; 0 where it takes next to nothing."""
        ...

    @property
    def is_silent(self) -> bool:
        """Whether it has nothing to propose."""
        ...

    @property
    def account(self) -> Account:
        """Of what its drafts win; all that it is shared by rest together."""
        ...

    def catch_up(self, tokens: npt.NDArray[np.int64]) -> None:
        """What came while nothing was drafted, `[n]`; first of all the prompt."""
        ...

    def extend(self, token: int) -> None:
        """What came: every token as it is drawn."""
        ...

    def propose(self) -> Iterator[Proposal]:
        """What may come after the last token, one by one, until nothing can be said; valid until another comes."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...
