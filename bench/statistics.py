"""Samples to figures, with the method stated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import msgspec

NS_PER_MS = 1e6
METHOD = "nearest rank; null unless n >= 10 / (1 - p)"
QUIET_SPREAD = 0.1
"""By how much rounds of a quiet machine may differ, as `spread_of` has it."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one metric; a percentile is null where the samples are too few to mean anything."""

    unit: str
    count: int
    min: float | None
    mean: float | None
    max: float | None
    std: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    method: str = METHOD


def spread_of(rounds: Sequence[float]) -> float:
    """From the least to the most of one metric's rounds, as a share of their median."""
    return (max(rounds) - min(rounds)) / median(rounds)


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile of sorted samples, or None where fewer than ten lie beyond it.

    The median is given for any number of samples.
    """
    if not ordered:
        return None
    if share > 0.5 and len(ordered) * (1 - share) < 10 - 1e-9:
        return None
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def summarise(samples: Sequence[float], unit: str) -> Summary:
    """Summarise samples, which are not changed; all figures are null when there are none."""
    ordered, count = sorted(samples), len(samples)
    mean = sum(ordered) / count if count else None
    spread = math.sqrt(sum((x - mean) ** 2 for x in ordered) / (count - 1)) if mean is not None and count > 1 else None
    return Summary(
        unit=unit,
        count=count,
        min=ordered[0] if count else None,
        mean=mean,
        max=ordered[-1] if count else None,
        std=spread,
        p50=percentile(ordered, 0.50),
        p90=percentile(ordered, 0.90),
        p95=percentile(ordered, 0.95),
        p99=percentile(ordered, 0.99),
    )
