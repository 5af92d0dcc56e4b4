"""Which rows a stage's firings read on a device: its engine has whole logs, and is told places in them.

By stride engines find their rows themselves. Where the data decides, the host tells for every firing where its rows are, and
nothing is moved: an engine gathers them out of the logs (`contract.resident_contract_of`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..contract import InputSpec, Limits, StageSpec, most_firings, span_room
from .clocks import Clock
from .reading import Reader, Source
from .rows import Ids, TokenLog


class Told(NamedTuple):
    """What the host tells an engine of a call, by tensor, int64; and how large its spans are, by the contract's letters."""

    numbers: Mapping[str, Ids]
    spans: Mapping[str, int]


class ResidentReader:
    """Of one stage.

    Args:
        spec: the stage.
        clock: of the stage.
        sources: of its inputs: logs that have no rows here, but those of ids.
        batch: sequences, in step.
        limits: of its engine.
        rooms: rows of every source's log, without those before the first.
    """

    def __init__(
        self, spec: StageSpec, clock: Clock, sources: Sequence[Source], batch: int, limits: Limits, rooms: Sequence[int]
    ) -> None:
        self._spec, self._reader = spec, Reader(spec, clock, sources, batch)
        self._inputs = list(zip(spec.names(), spec.inputs, sources, rooms, strict=True))
        self._batch, self._most, self._room = batch, most_firings(spec, limits), span_room(limits)

    def told(self, firings: range) -> Told:
        """Where these firings' rows are, and the ids that they read."""
        numbers: dict[str, Ids] = {}
        spans: dict[str, int] = {}
        for name, given, source, room in self._inputs:
            if given.reads == "span":
                of_spans = self._told_of_spans(name, given, source, room, firings)
                numbers |= of_spans.numbers
                spans |= of_spans.spans
                continue
            if given.reads == "newest":
                first = self._reader.ends(given, source, firings) - given.count
                indices = (first[:, None] + np.arange(given.count)).reshape(-1)
            elif given.source is None:
                start = firings.start * given.count - given.shift
                indices = np.arange(start, start + len(firings) * given.count)
            else:
                continue
            numbers |= self._rows(name, source, indices)
        return Told(numbers, spans)

    def _told_of_spans(self, name: str, given: InputSpec, source: Source, room: int, firings: range) -> Told:
        bounds = self._reader.span_bounds(firings, given, source)
        start, lengths = int(bounds[0]), np.diff(bounds)
        rows = max(int(bounds[-1]) - start, 1)
        places = {f"{name}.first": bounds[:-1] - start, f"{name}.lengths": self._of_all(lengths)}
        block = self._rows(name, source, np.minimum(np.arange(start, start + rows), room - 1))
        return Told({**block, **places}, {f"M.{name}": rows, f"P.{name}": max(int(lengths.max()), 1)})

    def _rows(self, name: str, source: Source, indices: Ids) -> dict[str, Ids]:
        """The ids at indices of the log, or where the rows at those indices are in it."""
        if isinstance(source.log, TokenLog):
            return {name: source.log.picked(indices).array}
        return {f"places.{name}": self._of_all(indices + source.log.lead)}

    def _of_all(self, numbers: Ids) -> Ids:
        """The same of every sequence, `[B, n]`."""
        return np.broadcast_to(numbers, (self._batch, len(numbers)))

    def parts(self, firings: range) -> Iterator[range]:
        """Firings in calls that the engine takes: no more than it was built for, and with spans that it has room for."""
        if len(firings) == 1 or not self._spec.reads_spans:
            for start in range(firings.start, firings.stop, self._most):
                yield range(start, min(start + self._most, firings.stop))
            return
        lengths = np.maximum(self._reader.longest_span(firings), 1).tolist()
        start, rows = firings.start, 0
        for firing, length in zip(firings, lengths, strict=True):
            is_long = length > min(self._room)
            if firing > start and (is_long or rows + length > self._room.block or firing - start == self._most):
                yield range(start, firing)
                start, rows = firing, 0
            rows += length
            if is_long:  # a call of its own
                yield range(firing, firing + 1)
                start, rows = firing + 1, 0
        if start < firings.stop:
            yield range(start, firings.stop)
