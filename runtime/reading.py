"""Which rows a stage's firings read: places of logs, as the blocks that its engine is given.

By stride they are one run of rows. Where the data decides, what all firings of a call read lies in one run too, for it only
goes forward: the engine is given that, and for every firing where its own rows are in it. Nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..contract import InputSpec, StageSpec
from .clocks import Clock
from .rows import Block, Ids, RowLog, TokenLog


class Source(NamedTuple):
    """What an input reads: a log, when its rows come, and how many come with each firing."""

    log: RowLog | TokenLog
    clock: Clock
    rows: int


class Reader:
    """Of one stage, for all sequences of a decoder in step.

    Args:
        spec: of the stage.
        clock: of the stage.
        sources: of its inputs.
        batch: sequences.
    """

    def __init__(self, spec: StageSpec, clock: Clock, sources: Sequence[Source], batch: int) -> None:
        self._inputs, self._clock, self._batch = list(zip(spec.inputs, sources, strict=True)), clock, batch
        self._by_stride = [(source.log.rows, given.count, given.shift) for given, source in self._inputs]
        self._is_linear = all(given.reads == "stride" for given in spec.inputs)
        self._zero = Block.of(np.zeros(1, np.int64))
        self._within = np.arange(1)

    def blocks(self, firings: range) -> list[Block]:
        """What the engine is given, in the order of its contract (`contract.read_tensors`)."""
        first, count = firings.start, len(firings)
        if self._is_linear:
            return [rows(first * each - shift, count * each) for rows, each, shift in self._by_stride]
        found: list[Block] = []
        for given, source in self._inputs:
            if given.reads == "stride":
                found.append(source.log.rows(first * given.count - given.shift, count * given.count))
            elif given.reads == "newest":
                found += self._newest(given, source, firings)
            else:
                found += self._spans(given, source, firings)
        return found

    def _newest(self, given: InputSpec, source: Source, firings: range) -> tuple[Block, Block]:
        if len(firings) == 1:
            seen = self._clock.fired_by(firings.start) + 1
            end = source.clock.firings_within(seen) * source.rows - given.shift
            return source.log.rows(end - given.count, given.count), self._zero
        firsts = self.ends(given, source, firings) - given.count
        first = int(firsts[0])
        return source.log.rows(first, int(firsts[-1]) + given.count - first), Block.of(firsts - first)

    def _spans(self, given: InputSpec, source: Source, firings: range) -> tuple[Block, ...]:
        bounds = self.span_bounds(firings, given, source)
        start, lengths = int(bounds[0]), np.diff(bounds)
        return (
            source.log.rows(start, max(int(bounds[-1]) - start, 1)),
            self._zero if len(firings) == 1 else Block.of(bounds[:-1] - start),
            self._counting(max(int(lengths.max()), 1)),
            Block.of(np.tile(lengths, (self._batch, 1))),
        )

    def span_bounds(self, firings: range, given: InputSpec, source: Source) -> Ids:
        """Where the spans of some firings begin, and where the last of them ends, `[n + 1]`: rows of the source."""
        before = firings.start - 1
        ends = self.ends(given, source, range(max(before, 0), firings.stop))
        return np.maximum(ends if before >= 0 else np.concatenate(([0], ends)), 0)

    def ends(self, given: InputSpec, source: Source, firings: range) -> Ids:
        """After the newest row that each firing reads."""
        found: Ids = source.clock.firings_within_each(self._clock.causes(firings) + 1) * source.rows - given.shift
        return found

    def longest_span(self, firings: range) -> Ids:
        """Of the spans that each firing reads, the longest `[n]`, for who cuts a call."""
        each = [np.diff(self.span_bounds(firings, given, source)) for given, source in self._inputs if given.reads == "span"]
        found: Ids = np.max(each, axis=0)
        return found

    def _counting(self, count: int) -> Block:
        """0 to count - 1."""
        if len(self._within) < count:
            self._within = np.arange(2 * count)
        return Block.of(self._within[:count])
