"""The clocks of all slots of a batch: what one slot's clock says of its own tokens, asked of many slots at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...contract import BEGINNING, ClockSpec, StageSpec
from ..boundaries import Boundaries
from ..clocks import Clocks, log_arrays, within_by_stride
from ..rows import Array, Ids, TokenLog


class SlotClocks:
    """Of the stages of a model, in every slot.

    Args:
        specs: of the stages.
        slots: how many.
        capacity: tokens of each.
    """

    def __init__(self, specs: Sequence[StageSpec], slots: int, capacity: int) -> None:
        self._specs, self._slots = specs, np.arange(slots)
        self._logs = log_arrays(specs, slots, capacity)
        self._rules = {spec: Boundaries(spec) for spec in self._logs}
        self._stages = {spec.stage for spec in self._logs}

    def of(self, slot: int) -> Clocks:
        """Those of one slot, in the same memory."""
        return Clocks(self._specs, {spec: (count[slot], ends[slot]) for spec, (count, ends) in self._logs.items()})

    def asks(self, stage: str) -> bool:
        """Whether the rows of a stage decide who fires."""
        return stage in self._stages

    def decided(self, slot: int, position: int) -> frozenset[str]:
        """The stages that the data had fire for a token."""
        made = {spec for spec, (count, _) in self._logs.items() if count[slot, position + 1] > count[slot, position]}
        return frozenset(spec.name for spec in self._specs if spec.clock in made)

    def next_firings(self, spec: StageSpec, positions: Ids) -> tuple[Ids, npt.NDArray[np.bool_]]:
        """The index of every slot's next firing, and whether the token at its position causes it."""
        if spec.clock is None:
            begin = positions - spec.delay
            return -(-begin // spec.stride), begin % spec.stride == 0
        count, _ = self._logs[spec.clock]
        before = count[self._slots, positions]
        after = count[self._slots, np.minimum(positions + 1, count.shape[1] - 1)]
        return spec.begins_ahead + before, after > before

    def firings_within(self, spec: StageSpec, slots: Ids, tokens: Ids) -> Ids:
        """How often the first so many tokens of each of some slots fire a stage, `[n]`."""
        if spec.clock is None:
            return within_by_stride(spec.stride, spec.delay, tokens)
        count, _ = self._logs[spec.clock]
        counted: Ids = count[slots, np.minimum(tokens, count.shape[1] - 1)]
        return counted + spec.begins_ahead

    def seen_at(self, spec: StageSpec, slots: Ids, firings: Ids, newest: Ids | None = None) -> Ids:
        """Tokens that are seen when a firing of each of some slots is caused, `[n]`.

        Args:
            spec: the stage.
            slots: which.
            firings: of each; those before the first are caused before there is a token.
            newest: by slot, the token that is being appended: no firing is caused later, whatever a log may hold.
        """
        if spec.clock is None:
            return np.maximum(firings * spec.stride + spec.delay, BEGINNING) + 1
        _, ends = self._logs[spec.clock]
        boundary = firings - spec.begins_ahead
        caused = np.where(boundary >= 0, ends[slots, np.clip(boundary, 0, ends.shape[1] - 1)], BEGINNING)
        return (caused if newest is None else np.minimum(caused, newest[slots])) + 1

    def see_ids(self, slots: Ids, positions: Ids, tokens: TokenLog) -> None:
        """Write down the boundaries that are decided by the ids at each slot's position."""
        if None in self._stages:
            ids = tokens.array[slots, positions + tokens.lead]
            self._append(None, slots, positions, np.ones(len(slots), np.bool_), positions, ids[:, None])

    def see_rows(self, stage: str, slots: Ids, positions: Ids, fires: npt.NDArray[np.bool_], firsts: Ids, rows: Array) -> None:
        """Write down the boundaries that are decided by the rows that a stage has just given.

        Args:
            stage: whose rows.
            slots: that take a token, `[n]`, and `positions`: where.
            fires: by slot `[slots]`, whether the stage fired, and `firsts`: which firing it was.
            rows: by slot `[slots, D]`.
        """
        self._append(stage, slots, positions, fires[slots], firsts[slots], rows[slots])

    def _append(
        self, stage: str | None, slots: Ids, positions: Ids, fired: npt.NDArray[np.bool_], index: Ids, rows: Array
    ) -> None:
        for spec, (count, ends) in self._logs.items():
            if spec.stage != stage:
                continue
            before = count[slots, positions]
            values = rows[:, 0 if stage is None else spec.column]
            made = fired & self._are_boundaries(spec, slots, before, index, values)
            count[slots, positions + 1] = before + made
            ends[slots[made], before[made]] = positions[made]

    def _are_boundaries(self, spec: ClockSpec, slots: Ids, before: Ids, index: Ids, values: Array) -> npt.NDArray[np.bool_]:
        """Of a row of each slot, by its index and value; `before`: boundaries that the slot has had."""
        rule = self._rules[spec]
        if not rule.look_back:
            rule.require_numbers(values, index)
            return rule.wanted(values) | (index < spec.firsts)
        last = self._last_rows(spec, slots, before)
        each = zip(index.tolist(), last.tolist(), values.tolist(), strict=True)
        return np.array([rule.is_one(row, since, value) for row, since, value in each])

    def _last_rows(self, spec: ClockSpec, slots: Ids, before: Ids) -> Ids:
        """The row that made the newest boundary of each slot; -1 where there is none."""
        tokens = np.where(before > 0, self._logs[spec][1][slots, np.maximum(before - 1, 0)], BEGINNING) + 1
        if spec.stage is None:
            return tokens - 1
        source = next(stage for stage in self._specs if stage.name == spec.stage)
        return self.firings_within(source, slots, tokens) - 1
