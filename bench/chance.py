"""Firings that the data would decide, where there is none: drawn by chance, as often as clocks expect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..contract import ClockSpec, StageSpec

Bits = npt.NDArray[np.bool_]


class ChanceFirings:
    """Of the stages of a model; each row of a clock's stage is a boundary with the same chance, whatever was before.

    Args:
        specs: of all stages, in dataflow order.
        seed: of the draws.
    """

    def __init__(self, specs: Sequence[StageSpec], seed: int = 0) -> None:
        self._rng, self._rates = np.random.default_rng(seed), {spec.name: spec.tokens_per_firing for spec in specs}
        self._made: dict[ClockSpec, Bits] = {}
        self._counts: dict[ClockSpec, int] = {}

    def begin(self) -> None:
        """A new step, or a new part of a prompt."""
        self._made.clear()
        self._counts.clear()

    def of_slots(self, clock: ClockSpec, rows: Bits) -> Bits:
        """Which slots of a step a clock fires for.

        Args:
            clock: stages of one clock fire together.
            rows: by slot `[N]`, whether there is a row that may be a boundary.
        """
        if clock not in self._made:
            self._made[clock] = rows & (self._rng.random(len(rows)) < self._share(clock))
        return self._made[clock]

    def of_rows(self, clock: ClockSpec, rows: int) -> int:
        """How often a clock fires in so many rows that may be boundaries."""
        if clock not in self._counts:
            self._counts[clock] = int(self._rng.binomial(rows, self._share(clock)))
        return self._counts[clock]

    def _share(self, clock: ClockSpec) -> float:
        tokens_per_row = 1.0 if clock.stage is None else self._rates[clock.stage]
        return min(tokens_per_row / clock.tokens_per_firing, 1.0)
