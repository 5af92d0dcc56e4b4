"""The mean of many values that are not independent within their window."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class Estimate(NamedTuple):
    """A mean and half the width of its 95 % confidence interval, or None where there is nothing to tell it from."""

    mean: float
    half_width: float | None


def clustered_mean(values: npt.NDArray[Any], clusters: npt.NDArray[np.int64]) -> Estimate:
    """The mean of values `[T]`, whose clusters `[T]` are independent of one another but not within.

    It is the ratio of the clusters' sums to their sizes; its variance is that ratio's, linearised, with a normal approximation.
    Of clusters of one size it is the usual one of their means. One cluster says nothing of the spread.
    """
    present = np.unique(clusters)
    place = np.searchsorted(present, clusters)
    sums, sizes = np.bincount(place, values.astype(np.float64)), np.bincount(place)
    mean = float(sums.sum() / sizes.sum())
    count = len(present)
    if count < 2:
        return Estimate(mean, None)
    spread = float(((sums - mean * sizes) ** 2).sum()) * count / (count - 1)
    return Estimate(mean, 1.96 * math.sqrt(spread) / float(sizes.sum()))
