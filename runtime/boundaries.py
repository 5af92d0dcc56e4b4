"""From values to boundaries: the rule of a clock, applied to the rows of a call."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..contract import ClockSpec
from ..errors import InputError
from .rows import Array, Ids

Bits = npt.NDArray[np.bool_]


class Boundaries:
    """Says which rows of a sequence are boundaries (`ClockSpec` has the rule).

    Attributes:
        look_back: whether it matters where the boundary before was.
        forced: bool `[rows]`, which of the first rows are boundaries, whatever the rule says; None: what it says. To compare
            precisions of a model under the schedule of one of them.
    """

    def __init__(self, spec: ClockSpec) -> None:
        self.spec = spec
        self.look_back = spec.least > 1 or spec.most is not None
        self._threshold = np.float32(spec.threshold).item()  # as values are: 0.1 in fp32 is above 0.1, and no boundary
        self.forced: Bits | None = None
        self._ids = np.array(spec.ids, np.int64) if spec.stage is None else None
        self._known = frozenset(spec.ids)

    def is_one(self, row: int, last: int, value: float) -> bool:
        """Whether one row is a boundary: the row, that of the boundary before (-1: none), and the row's value or token id."""
        spec = self.spec
        if self.forced is not None and row < len(self.forced):
            return bool(self.forced[row])
        if row < spec.firsts:
            return True
        if self.look_back:
            length = row - last
            if length < spec.least:
                return False
            if spec.most is not None and length >= spec.most:
                return True
        if self._ids is not None:
            return int(value) in self._known
        if value != value:
            raise self._no_number(row)
        return bool(value >= self._threshold if spec.ties else value > self._threshold)

    def among(self, first: int, last: int, values: Array) -> Bits:
        """Which of the rows from index `first` on are boundaries, by their values `[n]`; `last` as of `is_one`."""
        rows = len(values)
        if self.forced is not None and first < len(self.forced):
            given = self.forced[first : first + rows]
            return np.concatenate([given, self._after(given, first, last, values)])
        self.require_numbers(values, first)
        found = self.wanted(values)
        firsts = min(max(self.spec.firsts - first, 0), rows)
        found[:firsts] = True
        return self._spaced(found, first, last, firsts) if self.look_back else found

    def require_numbers(self, values: Array, first: int | Ids) -> None:
        """Raise InputError for values of rows from index `first` on, or of rows at these indices, of which one is NaN."""
        if self._ids is None and np.isnan(values).any():
            place = int(np.flatnonzero(np.isnan(values))[0])
            raise self._no_number(first + place if isinstance(first, int) else int(first[place]))

    def _no_number(self, row: int) -> InputError:
        """A value that is none says nothing, and a stage that never fires would give logits that look right."""
        return InputError(
            f'stage "{self.spec.stage}" gave NaN in row {row}, by whose value other stages fire; its weights are broken, or '
            "its precision overflows: build it in fp32, and look at the ids that it was given"
        )

    def _after(self, given: Bits, first: int, last: int, values: Array) -> Bits:
        """By the rule, those of a call that come after what is forced."""
        count = len(given)
        if count == len(values):
            return given[:0]
        made = np.flatnonzero(given)
        return self.among(first + count, first + int(made[-1]) if len(made) else last, values[count:])

    def wanted(self, values: Array) -> Bits:
        """By their values alone."""
        if self._ids is not None:
            return np.isin(values, self._ids)
        found: Bits = values >= self._threshold if self.spec.ties else values > self._threshold
        return found

    def wanted_of(self, made: Bits, values: Array) -> Bits:
        """Which rows from the first on the rule makes boundaries `[n]`, each by its value and the boundaries made before it."""
        rows = np.arange(len(made))
        before = np.maximum.accumulate(np.where(made, rows, -1))
        length = rows - np.concatenate(([-1], before[:-1])) if len(made) else rows
        found = self.wanted(values) & (length >= self.spec.least)
        if self.spec.most is not None:
            found |= length >= self.spec.most
        found[: self.spec.firsts] = True
        return found

    def _spaced(self, wanted: Bits, first: int, last: int, firsts: int) -> Bits:
        """Leave out those too near the one before, and put one where a span would become too long: a step for each boundary."""
        spec, end = self.spec, first + len(wanted)
        found = np.zeros_like(wanted)
        found[:firsts] = True
        last = first + firsts - 1 if firsts else last
        candidates: Ids = np.flatnonzero(wanted) + first
        while True:
            place = int(np.searchsorted(candidates, last + spec.least))
            row = int(candidates[place]) if place < len(candidates) else end
            if spec.most is not None:
                row = min(row, last + spec.most)
            if row >= end:
                return found
            found[row - first] = True
            last = row
