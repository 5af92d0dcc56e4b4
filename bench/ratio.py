"""How many times one figure is another, with a confidence interval, from the rounds in which both were measured.

Logarithms of rounds are averaged, so that a ratio and its inverse have inverse intervals, and the interval is Student's: with 4
to 10 rounds a bootstrap would be too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, variance

import msgspec

CONFIDENCE = 0.95
_QUANTILES = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
)  # fmt: skip
"""Of Student's distribution at 0.975, by degrees of freedom from 1 (any book's table; a test holds them to scipy)."""


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """A geometric mean of ratios and its 95 % interval; the bounds are null where there is one round, which says nothing."""

    ratio: float
    low: float | None
    high: float | None
    rounds: int

    @property
    def differs(self) -> bool:
        """Whether the interval leaves 1 out."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Of rounds that took turns: round by round, so that what disturbs the machine for a while is in both.

    Args:
        ours, theirs: as many values above 0 each, by round.
    """
    logs = [math.log(one / other) for one, other in zip(ours, theirs, strict=True)]
    error = math.sqrt(variance(logs) / len(logs)) if len(logs) > 1 else None
    return _ratio(fmean(logs), error, len(logs) - 1, len(logs))


def unpaired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Of rounds of two runs, by Welch's formula: their variances need not be the same.

    Args:
        ours, theirs: values above 0, by round; as many or not.
    """
    one, other = ([math.log(value) for value in values] for values in (ours, theirs))
    difference, rounds = fmean(one) - fmean(other), min(len(one), len(other))
    if rounds < 2:
        return _ratio(difference, None, 0, rounds)
    parts = [variance(logs) / len(logs) for logs in (one, other)]
    error = sum(parts)
    degrees = sum(part**2 / (len(logs) - 1) for part, logs in zip(parts, (one, other), strict=True))
    return _ratio(difference, math.sqrt(error), error**2 / degrees if degrees else len(one) + len(other) - 2, rounds)


def quantile(degrees: float) -> float:
    """Student's at 0.975; of a fraction of degrees that of the whole number below, which is a little wider."""
    whole = max(int(degrees), 1)
    if whole <= len(_QUANTILES):
        return _QUANTILES[whole - 1]
    normal = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)  # and the first terms of its Cornish-Fisher expansion
    return normal + (normal**3 + normal) / (4 * whole) + (5 * normal**5 + 16 * normal**3 + 3 * normal) / (96 * whole**2)


def _ratio(mean: float, error: float | None, degrees: float, rounds: int) -> Ratio:
    half = None if error is None else quantile(degrees) * error
    low, high = (None, None) if half is None else (math.exp(mean - half), math.exp(mean + half))
    return Ratio(ratio=math.exp(mean), low=low, high=high, rounds=rounds)
