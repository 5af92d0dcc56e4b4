"""What a run found, with every sample."""

from __future__ import annotations

from statistics import fmean, median

import msgspec

from ..environment import Environment
from .peers import Kind

PEERS_SCHEMA_VERSION = 1


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What each system does in a round: so many sequences of so many tokens each, and new ones behind them."""

    sequences: int
    prompt_tokens: int
    new_tokens: int
    threads: int
    rounds: int

    @property
    def capacity(self) -> int:
        """Tokens of a sequence; some systems round it up."""
        return self.prompt_tokens + self.new_tokens


class SystemResult(msgspec.Struct, frozen=True, kw_only=True):
    """One system; lists have an entry per round, in seconds. `logits_error` is in standard deviations (`agreement.py`).

    `first_token_s`: from the start of a process to the first token behind a short prompt, imports and loading included.
    """

    name: str
    peer: str
    hierarchy: str
    precision: str
    kind: Kind
    versions: dict[str, str]
    logits_error: float
    prefill_s: list[float]
    step_s: list[list[float]]
    first_token_s: list[float]

    @property
    def step_ms_by_round(self) -> list[float]:
        """The mean of each round's steps."""
        return [1e3 * fmean(steps) for steps in self.step_s]

    @property
    def step_ms(self) -> float:
        """The median of these."""
        return median(self.step_ms_by_round)


class PeersResult(msgspec.Struct, frozen=True, kw_only=True):
    """All systems of a run; `skipped` says why a peer is missing."""

    schema_version: int = PEERS_SCHEMA_VERSION
    command: str
    work: Work
    systems: list[SystemResult]
    skipped: dict[str, str]
    environment: Environment
