"""How often stages fire: by their stride, or as a text showed where the data decides."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..contract import StageSpec, clocks_of
from ..runtime.schedules import Decisions, Schedule, firings_of


class Pace:
    """Counts the firings of each stage over windows of a text.

    Args:
        specs: of the stages.
    """

    def __init__(self, specs: Sequence[StageSpec]) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._fired = dict.fromkeys(self._specs, 0)
        self._rows = {clock: [0, 0] for clock in clocks_of(specs)}
        self._tokens = 0

    def add(self, schedule: Schedule, tokens: int) -> None:
        """What was decided of a window of so many tokens."""
        self._tokens += tokens
        for name, spec in self._specs.items():
            self._fired[name] += firings_of(spec, tokens, schedule)
        for clock, counts in self._rows.items():
            counts[0] += len(schedule[clock].made)
            counts[1] += int(schedule[clock].made.sum())

    def tokens_per_firing(self, stage: str) -> float:
        """Tokens after which a stage fires once; as its clock expects while no text was seen, or none fired it."""
        spec, fired = self._specs[stage], self._fired[stage]
        return self._tokens / fired if spec.clock is not None and fired else spec.tokens_per_firing

    def even(self, tokens: int) -> Schedule:
        """A schedule of this pace whose boundaries are at even distances, so that all precisions can be timed by one."""
        found = {}
        for clock, (rows, boundaries) in self._rows.items():
            every = math.ceil(rows / boundaries) if boundaries else math.ceil(clock.tokens_per_firing)
            made = np.arange(1, tokens + 1) % every == 0
            found[clock] = Decisions(np.arange(tokens), np.zeros(tokens, np.float32), made, made)
        return found
