"""How far two computations that should agree are apart, and where that is first too far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...runtime.rows import Array

TOLERANCE = 1e-4
"""Of the reference's largest magnitude: fp32 rounding of another order of sums stays well below."""


@dataclass
class Comparison:
    """Collects absolute errors, and the first place where one is beyond the tolerance.

    Attributes:
        tolerance: of the reference's largest magnitude; None: nothing is too far.
        magnitude: that magnitude; None: the largest of each part that is added, and at least 1.
    """

    name: str
    tolerance: float | None
    magnitude: float | None = None
    largest: float = 0.0
    total: float = 0.0
    values: int = 0
    where: str | None = None

    def add(self, got: Array, expected: Array, place: Callable[[int], str], axis: int) -> None:
        """Compare; `place(i)` says where index i of `axis` is. What is not a number is infinitely far off."""
        with np.errstate(invalid="ignore"):
            difference = np.nan_to_num(np.abs(got.astype(np.float64) - expected), nan=np.inf, posinf=np.inf)
        if difference.size == 0:
            return
        self.values += difference.size
        self.total += float(difference.sum())
        self.largest = max(self.largest, float(difference.max()))
        if self.where is None and self.tolerance is not None:
            allowed = self.tolerance * (max(1.0, float(np.abs(expected).max())) if self.magnitude is None else self.magnitude)
            others = tuple(other for other in range(difference.ndim) if other != axis)
            beyond = ~((difference <= allowed) & np.isfinite(difference)).all(axis=others)
            self.where = place(int(np.argmax(beyond))) if beyond.any() else None

    @property
    def mean(self) -> float:
        """Of the absolute errors."""
        return self.total / max(self.values, 1)
