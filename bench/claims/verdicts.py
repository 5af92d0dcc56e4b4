"""Many comparisons, one answer."""

from __future__ import annotations

from collections.abc import Sequence

from .result import Answer


def answer_of(held: Sequence[bool]) -> Answer:
    """All, some or none of the comparisons."""
    if held and all(held):
        return "holds"
    return "holds in part" if any(held) else "does not hold"
