"""Decoding a batch in the host's memory, each of its sequences at a position of its own.

Slot b owns row b of every cache `[N, H, S, W]` and of every log `[N, rows, D]`, so that what it has written is contiguous: a
prompt is appended by a decoder of its own (`host.py`) that works on its part, and copies nothing. A decode step runs every
stage for the slots it fires for, on views of the caches (`ranges.py`); what a stage reads of several slots is brought together,
a row or a window of each.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...contract import InputSpec, StageSpec, leads_of, vocab_size_of
from ..decoder import Observer, Written
from ..engines.base import SlotsEngine, SlotsStage
from ..host import HostDecoder, Memory, lend
from ..rows import Array, Block, Ids, RowLog, TokenLog
from ..state_copies import COPIES_BYTES, interval_of
from .ranges import may_overfire, ranges_of
from .slot_clocks import SlotClocks

_FIRST = np.zeros(1, np.int64)
_MOST_VIEWS = 256
"""Of one stage: engines bound to runs of slots. Each is a few KB, and takes a tenth of a millisecond to make."""


class _SlotStage:
    """One stage for all slots: its caches, its log, and its engine bound to runs of slots."""

    def __init__(self, engine: SlotsEngine, slots: int, firings: int, lead: int) -> None:
        self.engine, self.spec, self.firings, self.lead = engine, engine.spec, firings, lead
        self.caches = engine.new_caches(slots, firings)
        self.rows_of_slot = lead + firings * self.spec.output_rows
        keeps_rows = self.spec.output == "hidden"
        self.log = np.zeros((slots, self.rows_of_slot, self.spec.width), np.float32) if keeps_rows else None
        self.may_overfire = may_overfire(self.spec)
        self.runs_again = self.spec.resets is not None or self.spec.is_recurrent

    @property
    def nbytes(self) -> int:
        """Of caches and rows."""
        return sum(cache.nbytes for cache in self.caches) + (0 if self.log is None else self.log.nbytes)

    def attach(self, first: int, last: int) -> SlotsStage:
        """Its engine on slots `[first, last)`."""
        return self.engine.attach([cache[first:last] for cache in self.caches], last - first, self.firings)

    def log_of(self, slot: int) -> RowLog | None:
        """The rows of one slot as a decoder of one sequence keeps them, `[rows, 1, D]`."""
        return None if self.log is None else RowLog(self.lead, self.log[slot][:, None])

    def take(self, indices: Ids) -> Array:
        """Rows `[n, b, D]` at places `[n, b]` of all slots' rows together."""
        assert self.log is not None
        taken: Array = self.log.reshape(-1, self.spec.width).take(indices, axis=0)
        return taken

    def put(self, indices: Ids, rows: Array) -> None:
        """Write them."""
        assert self.log is not None
        self.log.reshape(-1, self.spec.width)[indices] = rows


class HostBatchDecoder:
    """As `BatchDecoder`, in the host's memory.

    Args:
        engines: in dataflow order.
        tokens: the ids `[slots, lead + capacity]` that sequences have seen.
        slots: sequences that there is room for.
        capacity: tokens of each.
    """

    def __init__(self, engines: Sequence[SlotsEngine], tokens: TokenLog, slots: int, capacity: int) -> None:
        self._observer: Observer | None = None
        self._specs = [engine.spec for engine in engines]
        self._tokens, self._slots, self._vocab_size = tokens, slots, vocab_size_of(self._specs)
        leads = leads_of(self._specs)
        self._stages = [
            _SlotStage(engine, slots, engine.spec.capacity_firings(capacity), leads[engine.spec.name]) for engine in engines
        ]
        self._copies_every = interval_of(self._specs, 1, capacity, COPIES_BYTES)
        self._clocks = SlotClocks(self._specs, slots, capacity)
        self._by_name = {stage.spec.name: stage for stage in self._stages}
        self._runs_again = any(stage.runs_again for stage in self._stages)
        self._of_slot: dict[int, HostDecoder] = {}
        self._views: OrderedDict[tuple[int, int], dict[str, SlotsStage]] = OrderedDict()
        self._positions = np.zeros(slots, np.int64)
        """Where each slot was last, for those that are run along."""
        self._fires = {spec.name: 0 for spec in self._specs}
        self._copied_bytes = 0
        self._none = np.zeros(slots, np.bool_)
        self._first_row = Block.of(np.zeros(1, np.int64))

    def prefill(self, slot: int, position: int, tokens: int, wanted: Ids) -> npt.NDArray[np.float32]:
        """As `BatchDecoder.prefill`."""
        logits = self._decoder(slot).run(position, tokens, wanted)
        self._positions[slot] = position + tokens
        of_one: npt.NDArray[np.float32] = logits[0]
        return of_one

    def step(self, slots: Ids, positions: Ids) -> npt.NDArray[np.float32]:
        """As `BatchDecoder.step`."""
        alone = self._alone(slots, positions)
        logits = np.empty((len(slots), self._vocab_size), np.float32)
        for index in np.flatnonzero(alone).tolist():
            logits[index] = self.prefill(int(slots[index]), int(positions[index]), 1, self._first_row.array)
        if not alone.all():
            logits[~alone] = self._step_together(slots[~alone], positions[~alone])
        return logits

    def _alone(self, slots: Ids, positions: Ids) -> npt.NDArray[np.bool_]:
        """Whose step is run by itself: a single slot's, which copies nothing, and those in which a stage runs again, from its
        last reset or from a copy of its state."""
        if len(slots) == 1:
            return np.ones(1, np.bool_)
        if not self._runs_again:
            return np.zeros(len(slots), np.bool_)
        each = zip(slots.tolist(), positions.tolist(), strict=True)
        return np.array([not self._decoder(slot).goes_on(position) for slot, position in each])

    def _step_together(self, slots: Ids, positions: Ids) -> npt.NDArray[np.float32]:
        self._positions[slots] = positions
        steps = np.zeros(self._slots, np.bool_)
        steps[slots] = True
        self._clocks.see_ids(slots, positions, self._tokens)
        logits = np.empty((self._slots, self._vocab_size), np.float32)
        for stage in self._stages:
            firsts, due = self._clocks.next_firings(stage.spec, self._positions)
            fires = due & steps
            passable = firsts < stage.firings if stage.may_overfire else self._none
            remembers = np.flatnonzero(fires).tolist() if stage.runs_again else ()
            for slot in remembers:
                self._decoder(slot).runs(stage.spec.name)
            for first, last in ranges_of(fires, passable):
                self._fire(stage, first, last, firsts[first:last], logits)
            self._fires[stage.spec.name] += int(np.count_nonzero(fires))
            if self._clocks.asks(stage.spec.name):
                self._clocks.see_rows(stage.spec.name, slots, positions, fires, firsts, self._newest_row(stage, firsts))
            for slot in remembers:
                self._decoder(slot).ran(stage.spec.name, int(firsts[slot]) + 1)
        self._positions[slots] += 1
        found: npt.NDArray[np.float32] = logits[slots]
        return found

    def _newest_row(self, stage: _SlotStage, firsts: Ids) -> Array:
        """The row of the firing that every slot has just had, `[slots, D]`."""
        place = np.arange(self._slots) * stage.rows_of_slot + stage.lead + np.minimum(firsts, stage.firings - 1)
        return stage.take(place)

    def _fire(self, stage: _SlotStage, first: int, last: int, firsts: Ids, logits: Array) -> None:
        """One engine call, for slots `[first, last)`."""
        spec, base = stage.spec, np.arange(first, last)
        inputs = [Block.of(rows) for rows in self._read(stage, base, firsts)]
        if stage.log is None:
            given, wanted = np.empty((last - first, 1, self._vocab_size), np.float32), self._first_row
        else:
            given, wanted = np.empty((spec.output_rows, last - first, spec.width), np.float32), None
        began = time.perf_counter_ns()
        self._view(first, last)[spec.name].run_each(firsts, inputs, Block.of(given), wanted)
        elapsed_ns = time.perf_counter_ns() - began
        if stage.log is None:
            logits[first:last] = given[:, 0]
        else:
            start = base * stage.rows_of_slot + stage.lead + firsts * spec.output_rows
            stage.put(start + np.arange(spec.output_rows)[:, None], given)
            self._copied_bytes += given.nbytes
        self._copied_bytes += sum(block.array.nbytes for block in inputs)
        if self._observer is not None:
            self._observer(spec, last - first, elapsed_ns)

    def _read(self, stage: _SlotStage, base: Ids, firsts: Ids) -> list[Array]:
        """What a firing of each slot reads (`contract.read_tensors`): ids `[b, count]`, rows `[count, b, D]`, places."""
        return [
            array
            for given in stage.spec.inputs
            for array in (self._read_span if given.reads == "span" else self._read_rows)(stage.spec, given, base, firsts)
        ]

    def _read_rows(self, spec: StageSpec, given: InputSpec, base: Ids, firsts: Ids) -> list[Array]:
        end = firsts * given.count - given.shift + given.count  # after the last row
        if given.reads == "newest":
            end = self._ends(given, base, self._positions[base] + 1)
        taken = self._take(given, base, end - given.count, given.count)
        return [taken, _FIRST] if given.reads == "newest" else [taken]

    def _read_span(self, spec: StageSpec, given: InputSpec, base: Ids, firsts: Ids) -> list[Array]:
        start = np.maximum(self._ends(given, base, self._clocks.seen_at(spec, base, firsts - 1)), 0)
        end = np.maximum(self._ends(given, base, self._clocks.seen_at(spec, base, firsts, self._positions)), 0)
        lengths = np.maximum(end - start, 0)  # of slots that are run along it may be anything
        longest = max(int(lengths.max()), 1)
        return [self._take(given, base, start, longest), _FIRST, np.arange(longest), lengths[:, None]]

    def _ends(self, given: InputSpec, base: Ids, seen: Ids) -> Ids:
        """After the newest row that there is in each slot once so many tokens are seen."""
        if given.source is None:
            return seen - given.shift
        spec = self._by_name[given.source].spec
        return self._clocks.firings_within(spec, base, seen) * spec.output_rows - given.shift

    def _take(self, given: InputSpec, base: Ids, start: Ids, count: int) -> Array:
        """So many rows of each slot from an index on: ids `[b, count]` or rows `[count, b, D]`."""
        if given.source is None:
            within = np.arange(count) + self._tokens.lead
            found: Array = self._tokens.array[
                base[:, None], np.minimum(start[:, None] + within, self._tokens.array.shape[1] - 1)
            ]
            return found
        source = self._by_name[given.source]
        within = np.minimum(start + np.arange(count)[:, None] + source.lead, source.rows_of_slot - 1)
        return source.take(base * source.rows_of_slot + within)

    def _view(self, first: int, last: int) -> dict[str, SlotsStage]:
        """The engines on slots `[first, last)`, which share caches with all other views of them."""
        view = self._views.pop((first, last), None)
        if view is None:
            view = {stage.spec.name: stage.attach(first, last) for stage in self._stages}
            lend(self._specs, view)
        self._views[first, last] = view
        if len(self._views) > _MOST_VIEWS:
            self._views.popitem(last=False)
        return view

    def _decoder(self, slot: int) -> HostDecoder:
        """Of one slot alone, in its own part of the memory."""
        if slot not in self._of_slot:
            logs = {stage.spec.name: log for stage in self._stages if (log := stage.log_of(slot)) is not None}
            memory = Memory(self._view(slot, slot + 1), logs)
            decoder = HostDecoder(
                self._specs, memory, self._tokens.of(slot), self._clocks.of(slot), 1, copies_every=self._copies_every
            )
            decoder.observer = self._observer
            self._of_slot[slot] = decoder
        return self._of_slot[slot]

    def decided(self, slot: int, position: int) -> frozenset[str]:
        """As `BatchDecoder.decided`."""
        return self._clocks.decided(slot, position)

    def read(self, slot: int, position: int) -> Written:
        """As `BatchDecoder.read`."""
        return self._decoder(slot).read(position)

    def write(self, slot: int, written: Written, position: int) -> None:
        """As `BatchDecoder.write`."""
        self._decoder(slot).write(written, position)
        self._positions[slot] = position

    def fork(self, source: int, target: int, position: int) -> None:
        """As `BatchDecoder.fork`."""
        self._decoder(target).copy_from(self._decoder(source), position)
        self._positions[target] = position

    @property
    def observer(self) -> Observer | None:
        """As `BatchDecoder.observer`."""
        return self._observer

    @observer.setter
    def observer(self, observer: Observer | None) -> None:
        self._observer = observer
        for decoder in self._of_slot.values():
            decoder.observer = observer

    @property
    def fires(self) -> dict[str, int]:
        """As `BatchDecoder.fires`; while another thread steps, too."""
        decoders = list(self._of_slot.values())
        return {name: count + sum(decoder.fires[name] for decoder in decoders) for name, count in self._fires.items()}

    @property
    def copied_bytes(self) -> int:
        """As `BatchDecoder.copied_bytes`."""
        return self._copied_bytes + sum(decoder.copied_bytes for decoder in self._of_slot.values())

    @property
    def state_bytes(self) -> dict[str, int]:
        """As `BatchDecoder.state_bytes`; memory that was never written is not committed."""
        return {stage.spec.name: stage.nbytes for stage in self._stages}

    def close(self) -> None:
        """As `BatchDecoder.close`."""
        self._stages, self._by_name, self._of_slot = [], {}, {}
        self._views.clear()
