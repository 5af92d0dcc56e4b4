"""What guesses the next tokens of one sequence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol


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
    def chance(self) -> float:
        """That the next proposal is right, as far as is known before it is made."""
        ...

    def extend(self, tokens: Sequence[int]) -> None:
        """What came: the prompt, and then every token as it is drawn."""
        ...

    def propose(self) -> Iterator[Proposal]:
        """What may come after the last token, one by one, until nothing can be said; valid until `extend` is called."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...
