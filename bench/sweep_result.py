"""What a sweep says: one point for each combination of what was varied."""

from __future__ import annotations

import msgspec

from .environment import Environment
from .ratio import Ratio
from .statistics import Summary

SWEEP_SCHEMA_VERSION = 1


class SweepPoint(msgspec.Struct, frozen=True, kw_only=True):
    """Decoding behind so many tokens (`context`), with so many sequences and threads. Tokens per second are of all sequences.

    `itl_ms`: of steps. `ratio`: the rate in times of the first point's, round by round.
    """

    bundle: str
    hierarchy: str
    precision: str
    threads: int
    batch: int
    context: int
    tokens_per_s: float
    tokens_per_s_by_round: list[float]
    itl_ms: Summary
    ratio: Ratio

    @property
    def label(self) -> str:
        """What tells it from all others."""
        return f"{self.bundle}, {self.threads} thread{'s' * (self.threads != 1)}, batch {self.batch}, context {self.context}"


class SweepResult(msgspec.Struct, frozen=True, kw_only=True):
    """A whole sweep; `problems` says what makes its figures doubtful."""

    schema_version: int
    command: str
    environment: Environment
    new_tokens: int
    rounds: int
    problems: list[str]
    points: list[SweepPoint]
