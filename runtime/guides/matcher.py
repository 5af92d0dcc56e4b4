"""llguidance's parser of one text, with its errors raised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from .library import brief, without_panic


class Followers(NamedTuple):
    """Ids that may follow, those that no model draws included, and whether the text may end here."""

    ids: npt.NDArray[np.bool_]
    may_end: bool


class Matcher:
    """A parser at some place of a text. One thread at a time.

    Args:
        make: makes llguidance's at the beginning.
        taken: the ids up to the place.
        made: one that `make` made already.
    """

    def __init__(self, make: Callable[[], Any], taken: Sequence[int] = (), made: Any | None = None) -> None:
        self._make, self._made = make, made
        self.taken = [*taken]
        self._to_consume = [*taken]

    def at_same_place(self) -> Matcher:
        """Another one, made where it is first asked.

        llguidance's own copies share a lexer: they wait for each other, with Python's lock in hand, and fail together.
        """
        return Matcher(self._make, self.taken)

    def take(self, ids: Sequence[int]) -> None:
        """Ids that follow, for `followers` to go on by."""
        self.taken += ids
        self._to_consume += ids

    def followers(self, count: int) -> Followers:
        """What may follow, `[count]`.

        Raises:
            InputError: llguidance can't go on.
        """
        return without_panic(lambda: self._followers(count))

    def _followers(self, count: int) -> Followers:
        if self._made is None:
            self._made = self._make()
        ids, self._to_consume = self._to_consume, []
        if ids:
            self._made.consume_tokens(ids)
        packed = self._made.compute_bitmask()  # if it failed, that the text ends (findings/)
        if self._made.is_error():
            raise InputError(f"the constraint can't be followed on: {_reason(self._made.get_error())}")
        bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little", count=count)
        return Followers(bits.view(np.bool_), bool(self._made.is_accepting()))


def _reason(message: str) -> str:
    said = brief(message)
    if said.startswith("NoExtension"):
        return "no token of the tokenizer writes what has to come next; allow other characters there"
    if "too complex" in said or "limit" in said or "Too" in said:
        return f"it is too complex ({said}); make its repetitions and alternatives smaller"
    return said
