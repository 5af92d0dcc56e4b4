"""When the data decides: the rule that makes boundaries of what a stage, or the text itself, says of every row."""

from __future__ import annotations

import math

import msgspec

from ..errors import ConfigError

_LARGEST = (2 - 2**-23) * 2.0**127
"""Of fp32."""


class ClockSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which rows are boundaries. Each of them fires the stages that have this clock, at the token that made the row.

    A boundary is a row whose value is above the threshold, and that is not too near the boundary before it; or a row so far
    from it that the longest span ends there. The value is a column of the row itself, so whoever sees the row sees it, too.

    Attributes:
        stage: whose rows have the value; None: a token is a boundary by its id.
        column: of the row, where the value is.
        threshold: in the value's own units (a probability, nats), and `ties`: whether a value equal to it is a boundary.
        ids: of the tokens that are boundaries, where no stage decides.
        firsts: the first so many rows are boundaries, whatever their values.
        least: rows of the shortest span, and `most`: of the longest (None: it ends where the values say).
        tokens_per_firing: to expect, for forecasts; what a text really fires is counted.

    Raises:
        ConfigError: both a stage and ids or neither, a threshold that is no number, or spans that can't be.
    """

    stage: str | None = None
    column: int = -1
    threshold: float = 0.0
    ties: bool = False
    ids: tuple[int, ...] = ()
    firsts: int = 0
    least: int = 1
    most: int | None = None
    tokens_per_firing: float = 1.0

    def __post_init__(self) -> None:
        if (self.stage is None) == (not self.ids):
            raise ConfigError("a clock is decided by the rows of a stage or by the ids of tokens: give one of stage and ids")
        if self.ids and min(self.ids) < 0:
            raise ConfigError(f"a clock fires at the token id {min(self.ids)}, expected ids of at least 0")
        if not abs(self.threshold) <= _LARGEST:
            raise ConfigError(f"a clock's threshold is {self.threshold}, expected a finite number of fp32, as the values are")
        if self.firsts < 0:
            raise ConfigError(f"a clock has {self.firsts} first boundaries, expected at least 0")
        if self.least < 1:
            raise ConfigError(f"a clock's shortest span has {self.least} rows, expected at least 1")
        if self.most is not None and self.most < self.least:
            raise ConfigError(
                f"a clock's longest span has {self.most} rows, expected at least as many as its shortest, {self.least}"
            )
        if not (math.isfinite(self.tokens_per_firing) and self.tokens_per_firing >= 1):
            raise ConfigError(
                f"a clock is expected to fire every {self.tokens_per_firing} tokens, expected a number of at least 1"
            )
