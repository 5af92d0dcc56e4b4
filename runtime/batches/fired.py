"""Which stages fire for a token, by its position."""

from __future__ import annotations

from collections.abc import Sequence

from ...contract import StageSpec, period_of


class FiredStages:
    """Names of the stages of fixed strides that fire when the token at a position is appended, in dataflow order.

    Args:
        specs: of the stages; those whose firings the data decides are left out.
    """

    def __init__(self, specs: Sequence[StageSpec]) -> None:
        self._specs = [spec for spec in specs if spec.clock is None]
        self._period = period_of(self._specs)
        self._found: dict[int, tuple[str, ...]] = {}

    def at(self, position: int) -> tuple[str, ...]:
        """Of the token at a position. Strides begin within the first periods, and repeat from there."""
        start = 2 * self._period
        phase = position if position < start else start + position % self._period
        if phase not in self._found:
            self._found[phase] = tuple(spec.name for spec in self._specs if spec.firings(phase, 1))
        return self._found[phase]
