"""When the data decided that stages fire, as a record: to look at, and to run a sequence by another's.

Rounding moves boundaries. What two precisions of a model give on one text differs because they compute otherwise, and because
they fire otherwise; run by one schedule, the second cause is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..contract import ClockSpec
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
    def tokens_per_boundary(self) -> float:
        """On average; infinite if there was none."""
        made = int(self.made.sum())
        return len(self.made) / made if made else float("inf")


Schedule = Mapping[ClockSpec, Decisions]
"""Of a sequence, by clock."""
