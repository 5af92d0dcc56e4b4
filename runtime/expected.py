"""A schedule that fires as often as the clocks of a model expect, for timing where there is no text that would decide."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..contract import ClockSpec, StageSpec, clocks_of, period_of
from .schedules import Decisions, Schedule


def expected_schedule(specs: Sequence[StageSpec], tokens: int) -> Schedule:
    """For so many tokens: the first row of every clock is a boundary, and then one comes whenever the expected rate is due.

    A session that follows it fires every stage its expected share of the time, whatever ids it is given. Empty of a model whose
    stages all fire by a fixed stride.
    """
    rates = {spec.name: spec.tokens_per_firing for spec in specs}
    return {clock: _regular(clock, 1.0 if clock.stage is None else rates[clock.stage], tokens) for clock in clocks_of(specs)}


def _regular(clock: ClockSpec, tokens_per_row: float, tokens: int) -> Decisions:
    """Boundaries at regular distances: as whole numbers allow, one in every so many rows."""
    rows = math.ceil(tokens / tokens_per_row) + 1
    distance = max(clock.tokens_per_firing / tokens_per_row, 1.0)
    made = np.zeros(rows, np.bool_)
    places = np.ceil(np.arange(rows) * distance).astype(np.int64)
    made[places[places < rows]] = True
    return Decisions(np.arange(rows), np.zeros(rows, np.float32), made, made)


def expected_period(specs: Sequence[StageSpec], at_least: int) -> int:
    """Tokens, at least so many but for rounding, in which every stage fires its expected share of the time by that schedule.

    Whole periods of strides, and of the rarest clock; those of several clocks at once need not come to whole numbers.
    """
    period = period_of(specs)
    rarest = max((spec.tokens_per_firing for spec in specs if spec.clock is not None), default=1.0)
    tokens = round(math.ceil(at_least / rarest) * rarest)
    return -(-tokens // period) * period
