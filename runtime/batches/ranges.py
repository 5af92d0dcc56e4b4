"""Which slots of a batch a stage runs for: runs of slots, because a run is a view of its caches.

Over-firing is harmless: a stage that runs for a slot whose turn it is not, at that slot's next firing index, writes rows that
nobody reads and that the true firing writes again. So slots between two that fire are run along where that is cheaper than
another call. Harmless it is not where a firing writes over what is still read (caches that keep a number of rows, recurrent
state), nor where a slot has no room for another firing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...contract import StageSpec

Range = tuple[int, int]
"""Slots `[first, last)`."""
WIDEST_GAP = 3
"""Slots that are run along rather than called around: a call reads all weights of a stage, another row of it costs a third to a
fifth of that (docs/performance.md)."""


def may_overfire(spec: StageSpec) -> bool:
    """Whether a firing that is not due leaves all that is still read as it is."""
    kept = [cache.keeps for cache in (*spec.caches, *(borrowed.cache for borrowed in spec.borrows))]
    return spec.page is None and not spec.is_recurrent and all(keeps is None for keeps in kept)


def ranges_of(fires: npt.NDArray[np.bool_], passable: npt.NDArray[np.bool_]) -> list[Range]:
    """Runs `[first, last)` of slots that hold all that fire.

    Args:
        fires: by slot `[N]`, whether it fires.
        passable: by slot `[N]`, whether it may be run along.
    """
    fired = np.flatnonzero(fires).tolist()
    found: list[Range] = []
    if not fired:
        return found
    first, end = fired[0], fired[0] + 1
    for slot in fired[1:]:
        if slot != end and not (slot - end <= WIDEST_GAP and passable[end:slot].all()):
            found.append((first, end))
            first = slot
        end = slot + 1
    found.append((first, end))
    return found
