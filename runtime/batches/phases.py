"""Phases of the slots of a batch: which of them fire their coarse stages together.

All sequences of a batch that decode advance by a token in each step, so `(position - step) % period` stays what it is while a
sequence decodes: its phase. Each slot has one, and a sequence waits with its first token until it is in the phase of its slot.

`staggered` spreads slots over the phases, in an order in which those that fire a stage together stand side by side, for every
stage of nested strides: sorted by `phase % k1`, then by `phase // k1 % (k2 / k1)`, and so on. `aligned` gives all of them the
same phase: the weights of coarse stages are read least often, and every k-th step is slow for everybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from ...contract import StageSpec, period_of
from ...errors import ConfigError
from .ranges import may_overfire, ranges_of

Policy = Literal["staggered", "aligned"]
_ROW_SHARE = 0.25
"""What one more row of a call costs, as a share of a call for one: the same measurement as of `ranges.WIDEST_GAP`."""


def check_policy(policy: str) -> None:
    """Raise ConfigError for a policy that there is not."""
    if not isinstance(policy, str) or policy not in get_args(Policy):
        raise ConfigError(f'got policy "{policy}", expected one of: {", ".join(get_args(Policy))}')


def modulus_of(specs: Sequence[StageSpec], policy: Policy) -> int:
    """Phases are told apart modulo this: the longest of the nested strides, or where all are to fire together, the period."""
    return period_of(specs) if policy == "aligned" else _nested(sorted({spec.stride for spec in specs}))[-1]


def phases_of(specs: Sequence[StageSpec], slots: int, policy: Policy) -> list[int]:
    """The phase of every slot."""
    if policy == "aligned":
        return [0] * slots
    strides = _nested(sorted({spec.stride for spec in specs}))
    return [_phase(slot * strides[-1] // slots, strides) for slot in range(slots)]


def _nested(strides: Sequence[int]) -> list[int]:
    """Those of which each is a multiple of the one before, beginning with 1."""
    chain = [1]
    for stride in strides:
        if stride % chain[-1] == 0 and stride > 1:
            chain.append(stride)
    return chain


def _phase(rank: int, strides: Sequence[int]) -> int:
    """The phase of a rank: its digits, the most significant first, are those of the phase, the least significant first."""
    phase = 0
    for finer, coarser in pairwise(strides):
        below = strides[-1] // coarser
        digit, rank = rank // below, rank % below
        phase += digit * finer
    return phase


def step_costs(specs: Sequence[StageSpec], phases: Sequence[int], taken: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """What each step of a period costs with some slots taken: weights read, and a share of them for every further row.

    Args:
        specs: of the stages.
        phases: of the slots.
        taken: bool `[N]`.

    Returns:
        float64 `[period]`, in parameters.
    """
    period = period_of(specs)
    costs = np.zeros(period)
    for spec in specs:
        passable = np.full(len(phases), may_overfire(spec))
        of_stride = np.zeros(spec.stride)
        for step in range(spec.stride):
            due = (np.array(phases) + step - spec.delay) % spec.stride == 0
            for first, last in ranges_of(due & taken, passable):
                of_stride[step] += max(spec.parameters, 1) * (1 + _ROW_SHARE * (last - first - 1))
        costs += np.tile(of_stride, period // spec.stride)
    return costs


def best_slot(specs: Sequence[StageSpec], phases: Sequence[int], taken: npt.NDArray[np.bool_]) -> int:
    """The free slot with which the costliest step of a period is cheapest, and then all of them together."""
    free = np.flatnonzero(~taken).tolist()
    candidates = {phases[slot]: slot for slot in reversed(free)}  # the first of each phase
    if len(candidates) == 1 or not taken.any():
        return int(free[0])

    def cost(slot: int) -> tuple[float, float, int]:
        with_it = taken.copy()
        with_it[slot] = True
        costs = step_costs(specs, phases, with_it)
        return float(costs.max()), float(costs.sum()), slot

    return min(candidates.values(), key=cost)
