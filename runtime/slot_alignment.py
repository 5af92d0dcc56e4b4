"""Whether every slot of a batch begins where a device lets a tensor begin: a run is a view of the slots that it is for."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..contract import Limits, StageSpec
from ..errors import ConfigError
from .engines.resident import ResidentEngine
from .resident_state import kept_by

_FURTHEST = 4096
"""Tokens more than asked for, among which a capacity is looked for that would do."""


def require_aligned_slots(engines: Sequence[ResidentEngine], limits: Limits, alignment: int) -> None:
    """Raise ConfigError, with the capacity to build for, if the state of some slot would begin where no tensor may.

    Slots that do not fire can't be run along to reach one that is aligned: in a prefill they would need room for all its rows.
    """
    specs = [engine.spec for engine in engines]
    crooked = _crooked(engines, specs, limits, alignment)
    if limits.batch == 1 or not crooked:
        return
    capacities = range(limits.capacity + 1, limits.capacity + _FURTHEST + 1)
    fitting = (
        capacity
        for capacity in capacities
        if not _crooked(engines, specs, msgspec.structs.replace(limits, capacity=capacity), alignment)
    )
    capacity = next(fitting, None)
    way_out = "open a session for each sequence"
    if capacity is not None:
        way_out = (
            f"build the engines for another capacity: foveal build BUNDLE --target {engines[0].target} --capacity {capacity}"
        )
    raise ConfigError(
        f"{crooked} bytes for each slot, expected a multiple of {alignment}, where this device lets a tensor begin; {way_out}"
    )


def _crooked(engines: Sequence[ResidentEngine], specs: Sequence[StageSpec], limits: Limits, alignment: int) -> str:
    """The first tensor that is not as long as it should be; empty if there is none."""
    for engine in engines:
        for kept in kept_by(engine, limits, specs):
            if kept.slot_bytes % alignment:
                return f'{kept.past} of stage "{engine.spec.name}" takes {kept.slot_bytes:,}'
    return ""
