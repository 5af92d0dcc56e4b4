"""Drafts from the text itself: what came after the last place that ended as the text ends now.

Saxena, "Prompt Lookup Decoding" (github.com/apoorvumang/prompt-lookup-decoding, 2023), without a length to choose: how likely a
guess is comes from how long the two places agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .chances import Chances
from .drafter import Proposal

_SHORT = 3
"""Tokens by which a place is found; one that agrees for twice as many is better. Fewer say too little to be worth a row."""
_BITS = 20
"""Of a token in a key of several; larger ids only make keys collide, which is looked at."""
_KEY = (1 << _BITS * _SHORT) - 1
_LONGEST = 64
"""Tokens by which two places are compared."""
_EXPECTED = (0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95)
"""How often what followed follows again, by the bits of the length of agreement, until it is learnt."""


class NgramDrafter:
    """Proposes what followed where the text was as it is now. Takes some microseconds a token, and no second model."""

    seconds = 0.0

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._keys = [0] * _SHORT
        """Of the tokens up to each place, and some in front of the first."""
        self._ends: dict[int, int] = {}
        self._long_ends: dict[tuple[int, int], int] = {}
        """The places behind the last tokens of these keys, and behind twice as many."""
        self._next: int | None = None
        """The place of the token that is proposed first."""
        self._agrees = 0
        """Tokens before it that are as the last ones of the text."""
        self.chances = Chances(_EXPECTED)

    @property
    def chance(self) -> float:
        """As `Drafter.chance`; exactly that of the first proposal."""
        return 0.0 if self._next is None else self.chances[_kind(self._agrees)]

    def extend(self, tokens: Sequence[int]) -> None:
        """As `Drafter.extend`."""
        ids, keys, ends, long_ends = self._ids, self._keys, self._ends, self._long_ends
        for token in tokens:
            if self._next is not None:
                self._follow(token)
            ids.append(token)
            here, key = len(ids), (keys[-1] << _BITS | token) & _KEY
            long_key = (keys[-_SHORT], key)
            keys.append(key)
            if self._agrees <= 2 * _SHORT and here > _SHORT:
                self._look(long_ends.get(long_key) or ends.get(key))
            ends[key] = long_ends[long_key] = here

    def _follow(self, token: int) -> None:
        """Learn whether the token that was proposed came, and go on there or not."""
        assert self._next is not None
        is_right = self._ids[self._next] == token
        self.chances.learn(_kind(self._agrees), is_right)
        self._next, self._agrees = (self._next + 1, min(self._agrees + 1, _LONGEST)) if is_right else (None, 0)

    def _look(self, place: int | None) -> None:
        """Follow another place if it agrees for longer."""
        if place is None:
            return
        agrees = self._agreement(place, 0)
        if agrees >= _SHORT and agrees > self._agrees:
            self._next, self._agrees = place, agrees

    def _agreement(self, place: int, known: int) -> int:
        """Tokens before a place that are as the last ones, of which so many are known to be."""
        ids, here, most = self._ids, len(self._ids), min(place, _LONGEST)
        while known < most and ids[place - known - 1] == ids[here - known - 1]:
            known += 1
        return known

    def propose(self) -> Iterator[Proposal]:
        """As `Drafter.propose`; what follows the last token of the text is what was proposed first, so that loops go on."""
        if self._next is None:
            return
        place, agrees, ids, first = self._next, self._agrees, self._ids, self._next
        here = len(ids)
        while True:
            token = ids[place] if place < here else ids[first + (place - here) % (here - first)]
            yield Proposal(token, self.chances[_kind(agrees)])
            place, agrees = place + 1, min(agrees + 1, _LONGEST)

    def close(self) -> None:
        """As `Drafter.close`."""


def _kind(agrees: int) -> int:
    return min(agrees, _LONGEST).bit_length() - 1
