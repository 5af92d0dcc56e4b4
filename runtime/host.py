"""Decoding in the host's memory: rows stand in logs, and engines read and write them where they are."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..contract import BEGINNING, RECURRENT_FIRINGS, ClockSpec, StageSpec, late_stages, leads_of, page_of, vocab_size_of
from ..errors import CapacityError, ConfigError, InputError
from .beside import Beside
from .calls import run_in_calls
from .clocks import Clock, ClockLog, Clocks, token_clock
from .decoder import Observer, Written
from .engines.base import BoundStage, Engine
from .reading import Reader, Source
from .rows import Array, Block, Ids, RowLog, TokenLog
from .sampling import SamplingParams
from .schedules import Schedule
from .state_copies import COPIES_BYTES, StateCopies, interval_of

MOST_TOKENS = 1024
"""Of one call. What an engine needs besides its caches grows with the rows of a call, and some versions of ONNX Runtime keep
a score for each of these and each row before; longer calls are no faster (docs/performance.md)."""
MOST_TOKENS_DECIDED = 512
"""Of one call where the data decides: rows that firings read are brought together for all firings of a call."""
MOST_SPAN_ROWS = 4096
"""That the spans of one call may have, each taken to be as long as the longest."""
_WAY_OUT = "append them to a batch (model.batch), in which each has its own clock"


@dataclass
class _Step:
    """A stage, its clock, its engine's caches, and what it reads and writes.

    Attributes:
        decides: the logs of boundaries that its rows are looked at for.
        copies: of its recurrent state, if it has any.
        is_late: whether no other stage reads in a decode step what it gives in that step.
        end: the firing after the last that was run.
    """

    spec: StageSpec
    clock: Clock
    bound: BoundStage
    reader: Reader
    output: RowLog | None
    decides: Sequence[ClockLog]
    copies: StateCopies | None
    is_late: bool
    end: int = 0

    def goes_on(self, firings: range) -> bool:
        """Whether its caches hold all that these firings remember, so that it writes no rows but theirs."""
        if self.copies is not None:
            return not firings or firings.start == self.end
        resets = self.spec.resets
        return resets is None or firings.start == self.end or firings.start % resets == 0


class Memory(NamedTuple):
    """What a decoder works on, by stage: engines with their caches, and the logs of rows."""

    bound: Mapping[str, BoundStage]
    logs: Mapping[str, RowLog]


class HostDecoder:
    """The interpreter of the manifest's dataflow program, as `Decoder`.

    Args:
        specs: of the stages, in dataflow order.
        memory: their state.
        tokens: the ids that the session has seen.
        clocks: of every stage.
        batch: sequences.
        overlap: whether stages that a decode step does not wait for run in a thread of their own, beside the others.
        copies_every: firings from one copy of a recurrent state to the next.
    """

    def __init__(
        self,
        specs: Sequence[StageSpec],
        memory: Memory,
        tokens: TokenLog,
        clocks: Clocks,
        batch: int,
        overlap: bool = False,
        copies_every: int = RECURRENT_FIRINGS,
    ) -> None:
        self.observer: Observer | None = None
        self.fires = {spec.name: 0 for spec in specs}
        self.clocks = clocks
        self._batch, self._vocab_size, self._tokens = batch, vocab_size_of(specs), tokens
        self._page, self._one = page_of(specs), Block.of(np.zeros(1, np.int64))
        self._by_ids = clocks.decided_by(None)
        self.steps = _steps(specs, memory, tokens, clocks, batch, copies_every)
        self._beside = Beside() if overlap and any(step.is_late for step in self.steps) else None

    @classmethod
    def open(
        cls,
        engines: Sequence[Engine],
        tokens: TokenLog,
        batch: int,
        capacity: int,
        overlap: bool = False,
        copies_bytes: int = COPIES_BYTES,
    ) -> HostDecoder:
        """With state of its own, for so many tokens; `copies_bytes`: for copies of recurrent state."""
        specs = [engine.spec for engine in engines]
        firings, leads = {spec.name: spec.capacity_firings(capacity) for spec in specs}, leads_of(specs)
        logs = {
            spec.name: RowLog.allocate(leads[spec.name], firings[spec.name] * spec.output_rows, batch, spec.width)
            for spec in specs
            if spec.output == "hidden"
        }
        bound = {engine.spec.name: engine.bind(batch, firings[engine.spec.name]) for engine in engines}
        lend(specs, bound)
        every = interval_of(specs, batch, capacity, copies_bytes)
        return cls(specs, Memory(bound, logs), tokens, Clocks.allocate(specs, capacity), batch, overlap, every)

    def run(self, position: int, tokens: int, wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """As `Decoder.run`."""
        return run_in_calls(self._run_all, position, tokens, wanted, self._room, self._room_for)

    def _room(self, position: int) -> int:
        """How many tokens a call takes that begins there."""
        most = MOST_TOKENS_DECIDED if self.clocks.logs else MOST_TOKENS
        return most if self._page is None else min(most, self._page - position % self._page)

    def _room_for(self, rows: int) -> npt.NDArray[np.float32]:
        """Of logits `[B, rows, V]`."""
        try:
            return np.empty((self._batch, rows, self._vocab_size), np.float32)
        except (MemoryError, ValueError) as error:
            raise CapacityError(
                f"the logits of {self._batch} x {rows:,} tokens find no room ({error}); append fewer at a time, or ask for the "
                "last only: last_only=True"
            ) from error

    def _run_all(self, position: int, tokens: int, wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        logits = self._room_for(len(wanted))
        if self._by_ids and position != BEGINNING:
            start = self._tokens.lead + position
            ids = self._tokens.array[:, start : start + tokens].T
            for log in self._by_ids:
                log.append_each(position, tokens, ids, _WAY_OUT)
        beside = self._beside if tokens == 1 and self.observer is None else None
        try:
            for step in self.steps:
                firings = step.clock.firings(position, tokens)
                if firings:
                    self._run_stage(step, firings, wanted, logits, beside)
                if step.decides and position != BEGINNING:
                    self._log_rows(step, position, tokens, firings)
        finally:
            if beside is not None:
                beside.join()
        return logits

    def _run_stage(self, step: _Step, firings: range, wanted: Ids, logits: Array, beside: Beside | None) -> None:
        """Run all that a call needs of a stage."""
        fire = self._fire
        if step.copies is not None or (len(firings) > 1 and step.spec.reads_spans):
            fire = self._fire_in_parts
        elif step.spec.resets is not None:
            fire = self._fire_by_period
        if beside is None or not step.is_late:
            fire(step, firings, wanted, logits)
        elif step.goes_on(firings):
            beside.start(partial(fire, step, firings, wanted, logits))
        else:  # it writes rows again that others read in this step: nothing runs beside that
            beside.join()
            fire(step, firings, wanted, logits)

    def _log_rows(self, step: _Step, position: int, tokens: int, firings: range) -> None:
        """Write down the boundaries among the rows that a stage has just given."""
        assert step.output is not None
        array, first = step.output.array, step.output.lead + firings.start
        for log in step.decides:
            if tokens == 1 and self._batch == 1:  # of every token that is decoded
                log.append_one(position, firings, array[first, 0, log.spec.column] if firings else 0.0)
            else:
                log.append_each(position, tokens, array[first : first + len(firings), :, log.spec.column], _WAY_OUT)

    def _fire_in_parts(self, step: _Step, firings: range, wanted: Ids, logits: Array) -> None:
        """Run a stage whose state each firing replaces, or whose spans are of any length, in calls that are not too large.

        After a rewind the state is of later firings: it goes back to a copy, and the stage runs again from there.
        """
        for call in [firings] if step.copies is None else step.copies.calls(firings, step.end):
            for part in _parts_of_spans(step, call):
                self._fire_part(step, part, firings, wanted, logits)

    def _fire_part(self, step: _Step, part: range, firings: range, wanted: Ids, logits: Array) -> None:
        """Run some of the firings of a call, or some before them, again; fill in the logits of those that are wanted."""
        if step.output is not None or part == firings:
            self._fire(step, part, wanted, logits)
            return
        rows = firings.start + wanted
        is_here = (rows >= part.start) & (rows < part.stop)
        here = np.ascontiguousarray(logits[:, is_here])  # numpy picks columns into another layout
        self._fire(step, part, rows[is_here] - part.start, here)
        logits[:, is_here] = here

    def _fire_by_period(self, step: _Step, firings: range, wanted: Ids, logits: Array) -> None:
        """Run a stage that resets in calls of one period each.

        What the caches hold is of the firings before `step.end`. After a rewind those are others, and the stage runs again from
        its last reset: all it reads is in the logs. Of the stage that gives logits, periods in which none are wanted and which
        no later firing remembers are left out.
        """
        period = step.spec.resets or 1
        if step.goes_on(firings) and firings.start // period == (firings.stop - 1) // period:
            self._fire(step, firings, wanted, logits)
            return
        first = firings.start if firings.start == step.end else firings.start - firings.start % period
        for start in range(first - first % period, firings.stop, period):
            part = range(max(start, first), min(start + period, firings.stop))
            rows = firings.start + wanted
            is_here = (rows >= part.start) & (rows < part.stop)
            if step.output is not None or is_here.any() or part.stop == firings.stop:
                self._fire_part(step, part, firings, wanted, logits)

    def _block_of(self, wanted: npt.NDArray[np.int64]) -> Block:
        """Its address takes a microsecond to learn, so that of a single row is learnt once."""
        if len(wanted) > 1:
            return Block.of(wanted)
        self._one.array[0] = wanted[0]
        return self._one

    def _fire(self, step: _Step, firings: range, wanted: Ids, logits: Array) -> None:
        spec, first, count = step.spec, firings.start, len(firings)
        step.end = -1  # should the engine fail, nobody knows what its state is of
        inputs = step.reader.blocks(firings)
        if step.output is not None:
            output, rows = step.output.rows(first * spec.output_rows, count * spec.output_rows), None
        elif len(wanted):
            output, rows = Block.of(logits), self._block_of(wanted)
        else:  # the stage runs for what it remembers
            unwanted = np.empty((self._batch, 1, self._vocab_size), np.float32)
            output, rows = Block.of(unwanted), self._block_of(np.zeros(1, np.int64))
        if self.observer is None:
            step.bound.run(first, count, inputs, output, rows)
        else:
            began = time.perf_counter_ns()
            step.bound.run(first, count, inputs, output, rows)
            self.observer(spec, count, time.perf_counter_ns() - began)
        step.end = firings.stop
        self.fires[spec.name] += count

    draws = False

    def draw(
        self, position: int, count: int, params: SamplingParams, uniform: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.int64]:
        """As `Decoder.draw`: there is no way to the next token but the host's own."""
        raise ConfigError("these engines draw no tokens; draw them from the logits")

    def rows(self, stage: int, position: int) -> Array | None:
        """As `Decoder.rows`; a view."""
        step = self.steps[stage]
        if step.output is None:
            return None
        fired = step.clock.firings_within(position)
        return step.output.array[: step.output.lead + fired * step.spec.output_rows]

    def schedule(self, position: int) -> Schedule:
        """As `Decoder.schedule`."""
        return self.clocks.schedule(position, self._tokens, lambda clock: self._values(clock, position))

    def _values(self, clock: ClockSpec, position: int) -> Array:
        """Those of the rows that the first so many tokens made, of the first sequence."""
        step = next(step for step in self.steps if step.spec.name == clock.stage)
        assert step.output is not None
        rows = step.output.rows(0, step.clock.firings_within(position)).array
        found: Array = rows[:, 0, clock.column]
        return found

    def follow(self, schedule: Schedule | None) -> None:
        """As `Decoder.follow`."""
        self.clocks.follow(schedule)

    def write_rows(self, stage: int, rows: Array) -> None:
        """As `Decoder.write_rows`."""
        output = self.steps[stage].output
        if output is not None:
            output.array[: rows.shape[0]] = rows

    def read(self, position: int) -> Written:
        """As `Decoder.read`."""
        for step in self.steps:
            self._settle(step, step.clock.firings_within(position))
        return self._copied(position)

    def _copied(self, position: int) -> Written:
        """What was written up to a position, recurrent states as they are."""
        rows = [self.rows(stage, position) for stage in range(len(self.steps))]
        caches = tuple(tuple(cache.copy() for cache in self._used_caches(step, position)) for step in self.steps)
        own = tuple(None if array is None else array.copy() for array in rows)
        return Written(own, caches, self.clocks.made_within(position))

    def _settle(self, step: _Step, fired: int) -> None:
        """Let a recurrent state be that of so many firings, if it is of more: they were rewound."""
        if step.copies is None or step.end == fired:
            return
        first = step.end = step.copies.go_back(fired)
        if first < fired:
            self._fire_in_parts(step, range(first, fired), np.empty(0, np.int64), self._room_for(0))

    def _used_caches(self, step: _Step, position: int) -> Iterator[Array]:
        """The rows of its caches that the tokens before a position have written."""
        for cache, array in zip(step.spec.caches, step.bound.caches, strict=True):
            yield array[:, :, : cache.length(step.clock.firings_within(position))]

    def write(self, written: Written, position: int) -> None:
        """As `Decoder.write`."""
        check_same_shapes(written, self._copied(0))
        for stage, rows in enumerate(written.rows):
            if rows is not None:
                self.write_rows(stage, rows)
        self.clocks.restore(written.boundaries)
        for step, caches in zip(self.steps, written.caches, strict=True):
            for cache, saved in zip(step.bound.caches, caches, strict=True):
                cache[:, :, : saved.shape[2]] = saved
            step.end = -1  # whatever they hold, a stage that resets runs again from its last reset
            if step.copies is not None:
                step.end = step.clock.firings_within(position)
                step.copies.begin_at(step.end)

    def copy_from(self, other: HostDecoder, position: int) -> None:
        """Take over what another decoder of the same kind has written of so many tokens."""
        self.clocks.restore(other.clocks.made_within(position))
        for step, given in zip(self.steps, other.steps, strict=True):
            fired = given.clock.firings_within(position)
            if step.output is not None and given.output is not None:
                rows = step.output.lead + fired * step.spec.output_rows
                step.output.array[:rows] = given.output.array[:rows]
            for cache, array, taken in zip(step.spec.caches, step.bound.caches, given.bound.caches, strict=True):
                array[:, :, : cache.length(fired)] = taken[:, :, : cache.length(fired)]
            if step.copies is not None and given.copies is not None:
                step.copies.take_over(given.copies, fired)
            step.end = given.end

    def goes_on(self, position: int) -> bool:
        """Whether all stages hold what they remember at the token there, so that none runs again from its last reset."""
        return all(step.goes_on(self._next_firings(step, position)) for step in self.steps)

    def _next_firings(self, step: _Step, position: int) -> range:
        """What the token there fires, as far as that is known: where the data decides, it may."""
        if step.spec.clock is None:
            return step.clock.firings(position, 1)
        fired = step.clock.firings_within(position)
        return range(fired, fired + 1)

    def ran(self, stage: str, end: int) -> None:
        """A stage's caches were written elsewhere, up to a firing."""
        for step in self.steps:
            if step.spec.name == stage:
                step.end = end
                if step.copies is not None:
                    step.copies.keep(end)

    def runs(self, stage: str) -> None:
        """A stage's caches are about to be written elsewhere; until `ran` is called, nobody knows what they are of."""
        for step in self.steps:
            if step.spec.name == stage:
                step.end = -1

    def close(self) -> None:
        """As `Decoder.close`."""
        self.steps = ()
        if self._beside is not None:
            self._beside.close()

    @property
    def copied_bytes(self) -> int:
        """As `Decoder.copied_bytes`."""
        return sum(step.bound.copied_bytes for step in self.steps)

    @property
    def state_bytes(self) -> dict[str, int]:
        """As `Decoder.state_bytes`; memory that was never written is not committed."""
        return {
            step.spec.name: sum(cache.nbytes for cache in step.bound.caches) + (step.output.array.nbytes if step.output else 0)
            for step in self.steps
        }


def check_same_shapes(written: Written, own: Written) -> None:
    """Raise InputError unless what was written elsewhere fits: all but the number of rows must be as here."""

    def kinds(arrays: Sequence[Array | None], axis: int) -> list[tuple[object, ...] | None]:
        return [None if a is None else (a.dtype.name, a.shape[:axis], a.shape[axis + 1 :]) for a in arrays]

    def layout(of: Written) -> list[list[tuple[object, ...] | None]]:
        return [kinds(of.rows, 0), *(kinds(caches, 2) for caches in of.caches), kinds(of.boundaries, 0)]

    if layout(written) != layout(own):
        raise InputError(
            "the snapshot is of engines that keep their rows and caches otherwise; "
            "restore it into a session of the same bundle and target"
        )


def lend(specs: Sequence[StageSpec], bound: Mapping[str, BoundStage]) -> None:
    """Let stages that read caches of others read them."""
    for spec in specs:
        if spec.borrows:
            bound[spec.name].borrow([_cache_of(specs, bound, given.stage, given.cache.name) for given in spec.borrows])


def _steps(
    specs: Sequence[StageSpec], memory: Memory, tokens: TokenLog, clocks: Clocks, batch: int, copies_every: int
) -> tuple[_Step, ...]:
    late, rows_of = late_stages(specs), {spec.name: spec.output_rows for spec in specs}

    def source(name: str | None) -> Source:
        return Source(tokens, token_clock(), 1) if name is None else Source(memory.logs[name], clocks.of[name], rows_of[name])

    return tuple(
        _Step(
            spec=spec,
            clock=clocks.of[spec.name],
            bound=memory.bound[spec.name],
            reader=Reader(spec, clocks.of[spec.name], [source(given.source) for given in spec.inputs], batch),
            output=memory.logs.get(spec.name),
            decides=clocks.decided_by(spec.name),
            copies=_copies(spec, memory.bound[spec.name], copies_every),
            is_late=spec.name in late,
        )
        for spec in specs
    )


def _copies(spec: StageSpec, bound: BoundStage, every: int) -> StateCopies | None:
    states = [array for cache, array in zip(spec.caches, bound.caches, strict=True) if cache.recurrent]
    return StateCopies(states, every) if states else None


def _parts_of_spans(step: _Step, firings: range) -> Iterator[range]:
    """Firings in runs whose spans, each as long as the longest, are few rows: one long span makes all of a call that long."""
    if not step.spec.reads_spans or len(firings) == 1:
        yield firings
        return
    lengths = np.maximum(step.reader.longest_span(firings), 1).tolist()
    start, longest = 0, lengths[0]
    for index, length in enumerate(lengths):
        longest = max(longest, length)
        if index > start and longest * (index - start + 1) > MOST_SPAN_ROWS:
            yield range(firings.start + start, firings.start + index)
            start, longest = index, length
    yield range(firings.start + start, firings.stop)


def _cache_of(specs: Sequence[StageSpec], bound: Mapping[str, BoundStage], stage: str, name: str) -> Array:
    spec = next(spec for spec in specs if spec.name == stage)
    return bound[stage].caches[[cache.name for cache in spec.caches].index(name)]
