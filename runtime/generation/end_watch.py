"""Where a sequence ends by its own ids: looks for the marks of end rules, id by id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...contract import EndRule


@dataclass(frozen=True)
class Mark:
    """An end that was found: by which rule, and how many ids, up to the last one taken, mark it."""

    rule: EndRule
    length: int


class EndWatch:
    """Looks for the marks of some rules in a sequence.

    Args:
        rules: to look for.
        seen: ids that the sequence has already, `[T]`; places are counted from the first.
    """

    def __init__(self, rules: Sequence[EndRule], seen: npt.NDArray[np.integer[Any]]) -> None:
        self._rules, self._position = sorted(rules, key=lambda rule: -len(rule.ids)), len(seen)
        self._longest = max((len(rule.ids) for rule in rules), default=0)
        self._recent: list[int] = seen[len(seen) - min(self._longest, len(seen)) :].tolist()

    def take(self, token: int) -> Mark | None:
        """Go on by an id; the mark that it completes, if any: the longest one."""
        self._position += 1
        if self._longest:
            self._recent = [*self._recent, token][-self._longest :]
        return next((Mark(rule, len(rule.ids)) for rule in self._rules if self._holds(rule)), None)

    @property
    def pending(self) -> int:
        """How many of the newest ids may turn out to be an end that is not given out."""
        rules = [rule for rule in self._rules if not rule.gives_out]
        lengths = (length for rule in rules for length in range(1, len(rule.ids)) if self._begins(rule, length))
        return max(lengths, default=0)

    def _holds(self, rule: EndRule) -> bool:
        return self._begins(rule, len(rule.ids)) if rule.ids else self._position % rule.period == 0

    def _begins(self, rule: EndRule, length: int) -> bool:
        """Whether the newest ids are the first so many of a mark, at its place."""
        if tuple(self._recent[-length:]) != rule.ids[:length]:
            return False
        place = (self._position - length) % rule.period
        return place == rule.place if rule.place is not None else place + len(rule.ids) <= rule.period
