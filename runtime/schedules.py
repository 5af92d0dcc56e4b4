"""When the data decided that stages fire, as a record: to look at, and to run a sequence by another's.

Rounding moves boundaries. What two precisions of a model give on one text differs because they compute otherwise, and because
they fire otherwise; run by one schedule, the second cause is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..contract import BEGINNING, ClockSpec, StageSpec
from .rows import Ids


@dataclass(frozen=True)
class Decisions:
    """Of one clock, on one sequence.

    Attributes:
        tokens: that made the rows which may be boundaries, int64 `[n]`.
        values: of these rows, float32 `[n]`; of a clock that goes by ids, the ids.
        made: bool `[n]`, which of them were boundaries.
        wanted: bool `[n]`, which of them would be by their values and the boundaries that were made before: other than `made`
            only where another's schedule was followed.
    """

    tokens: Ids
    values: npt.NDArray[np.float32]
    made: npt.NDArray[np.bool_]
    wanted: npt.NDArray[np.bool_]

    def margins(self, clock: ClockSpec) -> npt.NDArray[np.float32]:
        """How far each value is from the threshold `[n]`; infinite where no stage decides, or the rule whatever the value."""
        found: npt.NDArray[np.float32] = np.abs(self.values - np.float32(clock.threshold)).astype(np.float32)
        if clock.stage is None:
            found[:] = np.inf
        found[: clock.firsts] = np.inf
        return found

    @property
    def ends(self) -> Ids:
        """The tokens that made a boundary, int64 `[boundaries]`."""
        found: Ids = self.tokens[self.made]
        return found

    @property
    def flips(self) -> Ids:
        """Which rows' values say otherwise than what was followed, int64 `[flips]`."""
        found: Ids = np.flatnonzero(self.made != self.wanted)
        return found

    def until(self, token: int) -> Decisions:
        """The rows of tokens before this one."""
        count = int(np.searchsorted(self.tokens, token))
        return Decisions(self.tokens[:count], self.values[:count], self.made[:count], self.wanted[:count])

    @property
    def tokens_per_boundary(self) -> float:
        """On average; infinite if there was none."""
        made = int(self.made.sum())
        return len(self.made) / made if made else float("inf")


Schedule = Mapping[ClockSpec, Decisions]
"""Of a sequence, by clock."""


def cause_of(spec: StageSpec, firing: int, schedule: Schedule) -> int:
    """The token that causes a firing, by its stride or by what was decided; the beginning, where there is none yet."""
    if spec.clock is None:
        return spec.fired_by(firing)
    boundary = firing - spec.begins_ahead
    return BEGINNING if boundary < 0 else int(schedule[spec.clock].ends[boundary])


def firings_of(spec: StageSpec, tokens: int, schedule: Schedule) -> int:
    """How often the first so many tokens fired a stage, all of which the schedule has seen."""
    if spec.clock is None:
        return spec.firings_within(tokens)
    return firings_by(spec, schedule[spec.clock].ends, tokens)


def firings_by(spec: StageSpec, ends: Ids, tokens: int) -> int:
    """The same of a stage that the data decides, by the tokens that made a boundary, ascending; with that before any token."""
    return spec.begins_ahead + int(np.searchsorted(ends, tokens))


def differing(one: Decisions, other: Decisions) -> int:
    """Tokens at which only one of them makes a boundary."""
    return len(np.setxor1d(one.ends, other.ends, assume_unique=True))
