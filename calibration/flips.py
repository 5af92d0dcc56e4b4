"""Where the data decides when stages fire: how near its decisions are, and how many of them rounding turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from ..contract import ClockSpec, StageSpec
from ..runtime.schedules import Decisions, Schedule, differing

SHARES = (0.001, 0.01, 0.1, 0.5)
"""Of all margins: those below which these shares lie are given."""
_NEAR = 0.05
"""The share of margins that the density at the threshold is taken from."""

Floats = npt.NDArray[np.float32]


class Margins(msgspec.Struct, frozen=True, kw_only=True):
    """How far the values that decide are from their threshold, in the values' own unit.

    Attributes:
        smallest: of all.
        quantiles: by share of the values, the margin that so many are below.
        density: values per unit just at the threshold, as a share of all values, from the nearest twentieth: times the mean
            error of a value it is about the share of decisions that flip.
    """

    smallest: float
    quantiles: dict[str, float]
    density: float

    @classmethod
    def of(cls, margins: Floats) -> Margins | None:
        """Of margins `[n]`; None if no value decides anything."""
        found = np.sort(margins[np.isfinite(margins)])
        if not len(found):
            return None
        near = max(float(np.quantile(found, _NEAR)), float(np.finfo(np.float32).tiny))
        return cls(
            smallest=float(found[0]),
            quantiles={f"{share:.1%}": float(np.quantile(found, share)) for share in SHARES},
            density=float((found <= near).mean()) / (2 * near),
        )


class ClockQuality(msgspec.Struct, frozen=True, kw_only=True):
    """What one clock decided of a text; the last five only against a reference that decides by the same rule.

    Attributes:
        decided_by: the stage whose rows have the values; None: ids of tokens decide.
        fires: the stages that it fires.
        threshold: of the values.
        tokens: of the text that was read.
        boundaries: that were made of them, on the own schedule.
        tokens_per_boundary: on average; None if there was none.
        margins: of the reference's values if there is one, else of the own; None where ids decide.
        value_error: mean absolute difference of a value from the reference's, both on the reference's schedule.
        flips: decisions that come out otherwise than the reference's, each with all boundaries before it as the reference's.
        flips_per_token: the same by token.
        moved: tokens at which, each on its own schedule, only one of the two makes a boundary.
        equal_share: of all boundaries that either makes, those that both make.
    """

    decided_by: str | None
    fires: tuple[str, ...]
    threshold: float
    tokens: int
    boundaries: int
    tokens_per_boundary: float | None
    margins: Margins | None
    value_error: float | None = None
    flips: int | None = None
    flips_per_token: float | None = None
    moved: int | None = None
    equal_share: float | None = None


@dataclass
class _Tally:
    """Of one clock, over the windows of a text."""

    tokens: int = 0
    boundaries: int = 0
    margins: list[Floats] = field(default_factory=list)
    error: float = 0.0
    values: int = 0
    flips: int = 0
    moved: int = 0
    common: int = 0


class Flips:
    """Counts what the clocks of a model decide, window by window.

    Args:
        specs: of the stages.
    """

    def __init__(self, specs: Sequence[StageSpec]) -> None:
        self._fires: dict[ClockSpec, list[str]] = {}
        for spec in specs:
            if spec.clock is not None:
                self._fires.setdefault(spec.clock, []).append(spec.name)
        self._tallies = {clock: _Tally() for clock in self._fires}
        self.is_compared = False

    def add(self, own: Schedule, tokens: int) -> None:
        """A window's schedule."""
        for clock, tally in self._tallies.items():
            self._count(tally, own[clock], tokens)
            tally.margins.append(own[clock].margins(clock))

    def add_compared(self, own: Schedule, forced: Schedule, reference: Schedule, tokens: int) -> None:
        """A window's schedules: as the values say, those values on the reference's schedule, and the reference's."""
        self.is_compared = True
        for clock, tally in self._tallies.items():
            decided, expected = forced[clock], reference[clock]
            self._count(tally, own[clock], tokens)
            tally.margins.append(expected.margins(clock))
            tally.error += float(np.abs(decided.values - expected.values).sum(dtype=np.float64))
            tally.values += len(expected.values)
            tally.flips += len(decided.flips)
            tally.moved += differing(own[clock], expected)
            tally.common += len(np.intersect1d(own[clock].ends, expected.ends, assume_unique=True))

    @property
    def flips_per_token(self) -> float:
        """Of all clocks together."""
        return sum(tally.flips / max(tally.tokens, 1) for tally in self._tallies.values())

    def found(self) -> tuple[ClockQuality, ...]:
        """By clock, in dataflow order."""
        return tuple(self._quality(clock, tally) for clock, tally in self._tallies.items())

    @staticmethod
    def _count(tally: _Tally, own: Decisions, tokens: int) -> None:
        tally.tokens += tokens
        tally.boundaries += int(own.made.sum())

    def _quality(self, clock: ClockSpec, tally: _Tally) -> ClockQuality:
        quality = ClockQuality(
            decided_by=clock.stage,
            fires=tuple(self._fires[clock]),
            threshold=clock.threshold,
            tokens=tally.tokens,
            boundaries=tally.boundaries,
            tokens_per_boundary=tally.tokens / tally.boundaries if tally.boundaries else None,
            margins=Margins.of(np.concatenate(tally.margins)),
        )
        if not self.is_compared:
            return quality
        either = tally.common + tally.moved
        return msgspec.structs.replace(
            quality,
            value_error=None if clock.stage is None else tally.error / max(tally.values, 1),
            flips=tally.flips,
            flips_per_token=tally.flips / tally.tokens,
            moved=tally.moved,
            equal_share=tally.common / either if either else 1.0,
        )
