"""Drafts from the text itself: what came after the last place that ended as the text ends now.

Saxena, "Prompt Lookup Decoding" (github.com/apoorvumang/prompt-lookup-decoding, 2023), without a length to choose: how likely a
guess is comes from how long the two places agree.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .account import Account
from .chances import Chances
from .drafter import Proposal

_LENGTHS = (6, 12, 24)
"""Tokens by which places are looked for, as long as there is one: the more agree, the better. Fewer say too little."""
_LONGEST = 64
"""Tokens of agreement that are told apart."""
_EXPECTED = (0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95)
"""How often what followed follows again, by the bits of the length of agreement, until it is learnt."""
_CHARACTERS = 0x110000


class NgramDrafter:
    """Proposes what followed where the text was as it is now. Takes microseconds, and no second model.

    The text is kept as a string, of a character for each token: places in it are found as quickly as a substring is.
    """

    seconds = 0.0

    def __init__(self) -> None:
        self._text = ""
        self._next: int | None = None
        """The place of the token that is proposed first."""
        self._agrees = 0
        """Tokens before it that are as the last ones of the text."""
        self.chances, self.account = Chances(_EXPECTED), Account()

    @property
    def is_silent(self) -> bool:
        """As `Drafter.is_silent`."""
        return self._next is None

    def catch_up(self, tokens: npt.NDArray[np.int64]) -> None:
        """As `Drafter.catch_up`."""
        self._text += (tokens % _CHARACTERS).astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
        self._look()

    def extend(self, token: int) -> None:
        """As `Drafter.extend`."""
        character, place = chr(token % _CHARACTERS), self._next
        is_right = place is not None and self._text[place] == character
        self._text += character
        if place is not None:
            self.chances.learn(_kind(self._agrees), is_right)
        if place is not None and is_right:
            self._next, self._agrees = place + 1, self._agrees + 1
        else:
            self._look()

    def _look(self) -> None:
        """For the last place where the text was as it ends now, for as long as possible."""
        text, end, self._next = self._text, len(self._text) - 1, None
        for length in _LENGTHS:
            place = text.rfind(text[-length:], 0, end) if length <= end else -1
            if place < 0:
                return
            self._next, self._agrees = place + length, length

    def propose(self) -> Iterator[Proposal]:
        """As `Drafter.propose`; what follows the last token of the text is what was proposed first, so that loops go on."""
        if self._next is None:
            return
        place, agrees, text = self._next, self._agrees, self._text
        period = len(text) - place
        while True:
            yield Proposal(ord(text[place]), self.chances[_kind(agrees)])
            place, agrees = place + 1, agrees + 1
            if place == len(text):
                place -= period

    def close(self) -> None:
        """As `Drafter.close`."""


def _kind(agrees: int) -> int:
    return min(agrees, _LONGEST).bit_length() - 1
