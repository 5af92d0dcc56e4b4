"""Decoding in the host's memory: rows stand in logs, and engines read and write them where they are."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..contract import StageSpec, late_stages, leads_of, page_of, vocab_size_of
from ..errors import CapacityError, ConfigError, InputError
from .beside import Beside
from .calls import run_in_calls
from .clocks import Clock, Clocks, LoggedClock, clocks_of, newest_rows
from .decoder import Observer, Written
from .engines.base import BoundStage, Engine
from .rows import Array, Block, Ids, RowLog, TokenLog
from .sampling import SamplingParams


@dataclass
class _Step:
    """A stage, its clock, its engine's caches, and the logs it reads and writes.

    Attributes:
        linear: whether the rows of every input are a slice: the stage and its sources fire by arithmetic.
        is_late: whether no other stage reads in a decode step what it gives in that step.
        end: the firing after the last that was run.
    """

    spec: StageSpec
    clock: Clock
    bound: BoundStage
    sources: tuple[RowLog | TokenLog, ...]
    linear: bool
    output: RowLog | None
    is_late: bool
    end: int = 0

    def goes_on(self, firings: range) -> bool:
        """Whether its caches hold all that these firings remember, so that it writes no rows but theirs."""
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
    """

    def __init__(
        self,
        specs: Sequence[StageSpec],
        memory: Memory,
        tokens: TokenLog,
        clocks: Mapping[str, Clock],
        batch: int,
        overlap: bool = False,
    ) -> None:
        self.observer: Observer | None = None
        self.fires = {spec.name: 0 for spec in specs}
        self._batch, self._vocab_size, self._tokens = batch, vocab_size_of(specs), tokens
        self._page, self._one = page_of(specs), Block.of(np.zeros(1, np.int64))
        self._clocks = clocks
        self._logged = [clock for clock in clocks.values() if isinstance(clock, LoggedClock)]
        self.steps = _steps(specs, memory, tokens, clocks)
        self._beside = Beside() if overlap and not self._logged and any(step.is_late for step in self.steps) else None

    @classmethod
    def open(
        cls,
        engines: Sequence[Engine],
        tokens: TokenLog,
        batch: int,
        capacity: int,
        overlap: bool = False,
        clocks: Clocks | None = None,
    ) -> HostDecoder:
        """With state of its own, for so many tokens."""
        specs = [engine.spec for engine in engines]
        of_stages = clocks_of(specs, clocks or {}, capacity)
        firings = {name: clock.capacity_firings(capacity) for name, clock in of_stages.items()}
        logs = {
            spec.name: RowLog.allocate(lead, firings[spec.name] * spec.output_rows, batch, spec.width)
            for spec, lead in leads_by(specs, of_stages)
        }
        bound = {engine.spec.name: engine.bind(batch, firings[engine.spec.name]) for engine in engines}
        lend(specs, bound)
        return cls(specs, Memory(bound, logs), tokens, of_stages, batch, overlap)

    def run(self, position: int, tokens: int, wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """As `Decoder.run`."""
        page = self._page
        if page is None:
            return self._run_all(position, tokens, wanted)
        return run_in_calls(self._run_all, position, tokens, wanted, lambda start: page - start % page)

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
        if self._logged:
            self.see(position, tokens)
        beside = self._beside if tokens == 1 and self.observer is None else None
        try:
            for step in self.steps:
                firings = step.clock.firings(position, tokens)
                if not firings:
                    continue
                fire = self._fire if step.spec.resets is None else self._fire_by_period
                if beside is None or not step.is_late:
                    fire(step, firings, wanted, logits)
                elif step.goes_on(firings):
                    beside.start(partial(fire, step, firings, wanted, logits))
                else:  # it writes rows again that others read in this step: nothing runs beside that
                    beside.join()
                    fire(step, firings, wanted, logits)
        finally:
            if beside is not None:
                beside.join()
        return logits

    def see(self, position: int, tokens: int = 0) -> None:
        """Let clocks that are logs know the tokens up to there."""
        for clock in self._logged:
            clock.see(self._tokens, position, position + tokens)

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
                here = np.ascontiguousarray(logits[:, is_here])  # numpy picks columns into another layout
                self._fire(step, part, rows[is_here] - part.start, here)
                logits[:, is_here] = here

    def _block_of(self, wanted: npt.NDArray[np.int64]) -> Block:
        """Its address takes a microsecond to learn, so that of a single row is learnt once."""
        if len(wanted) > 1:
            return Block.of(wanted)
        self._one.array[0] = wanted[0]
        return self._one

    def _fire(self, step: _Step, firings: range, wanted: Ids, logits: Array) -> None:
        spec, first, count = step.spec, firings.start, len(firings)
        step.end = firings.stop
        inputs = (
            [
                log.rows(first * given.count - given.shift, count * given.count)
                for given, log in zip(spec.inputs, step.sources, strict=True)
            ]
            if step.linear
            else self._read_newest(step, firings)
        )
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
        self.fires[spec.name] += count

    def _read_newest(self, step: _Step, firings: range) -> list[Block]:
        """A copy of what firings read whose places a log gives: the newest rows, once the token that causes one is seen."""
        seen = np.array([step.clock.fired_by(firing) for firing in firings]) + 1
        found = []
        for given, log in zip(step.spec.inputs, step.sources, strict=True):
            newest = seen - 1
            if given.source is not None:
                rows = next(other.spec.output_rows for other in self.steps if other.spec.name == given.source)
                newest = newest_rows(self._clocks[given.source], seen, rows)
            within = np.arange(1 - given.count, 1)
            found.append(log.picked((newest[:, None] + within).reshape(-1)))
        return found

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
        self.see(position)
        fired = step.clock.firings_within(position)
        return step.output.array[: step.output.lead + fired * step.spec.output_rows]

    def write_rows(self, stage: int, rows: Array) -> None:
        """As `Decoder.write_rows`."""
        output = self.steps[stage].output
        if output is not None:
            output.array[: rows.shape[0]] = rows

    def read(self, position: int) -> Written:
        """As `Decoder.read`."""
        self.see(position)
        rows = [self.rows(stage, position) for stage in range(len(self.steps))]
        caches = tuple(tuple(cache.copy() for cache in self._used_caches(step, position)) for step in self.steps)
        return Written(tuple(None if array is None else array.copy() for array in rows), caches)

    def _used_caches(self, step: _Step, position: int) -> Iterator[Array]:
        """The rows of its caches that the tokens before a position have written."""
        for cache, array in zip(step.spec.caches, step.bound.caches, strict=True):
            yield array[:, :, : cache.length(step.clock.firings_within(position))]

    def write(self, written: Written) -> None:
        """As `Decoder.write`."""
        check_same_shapes(written, self.read(0))
        for stage, rows in enumerate(written.rows):
            if rows is not None:
                self.write_rows(stage, rows)
        for step, caches in zip(self.steps, written.caches, strict=True):
            for cache, saved in zip(step.bound.caches, caches, strict=True):
                cache[:, :, : saved.shape[2]] = saved
            step.end = -1  # whatever they hold, a stage that resets runs again from its last reset
        for clock in self._logged:
            clock.forget()

    def copy_from(self, other: HostDecoder, position: int) -> None:
        """Take over what another decoder of the same kind has written of so many tokens."""
        other.see(position)
        for step, given in zip(self.steps, other.steps, strict=True):
            fired = given.clock.firings_within(position)
            if step.output is not None and given.output is not None:
                rows = step.output.lead + fired * step.spec.output_rows
                step.output.array[:rows] = given.output.array[:rows]
            for cache, array, taken in zip(step.spec.caches, step.bound.caches, given.bound.caches, strict=True):
                array[:, :, : cache.length(fired)] = taken[:, :, : cache.length(fired)]
            step.end = given.end
        for clock in self._logged:
            clock.forget()

    def goes_on(self, position: int) -> bool:
        """Whether all stages hold what they remember at the token there, so that none runs again from its last reset."""
        return all(step.goes_on(step.clock.firings(position, 1)) for step in self.steps)

    def ran(self, stage: str, end: int) -> None:
        """A stage's caches were written elsewhere, up to a firing."""
        for step in self.steps:
            if step.spec.name == stage:
                step.end = end

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
        return [kinds(of.rows, 0), *(kinds(caches, 2) for caches in of.caches)]

    if layout(written) != layout(own):
        raise InputError(
            "the snapshot is of engines that keep their rows and caches otherwise; "
            "restore it into a session of the same bundle and target"
        )


def leads_by(specs: Sequence[StageSpec], clocks: Mapping[str, Clock]) -> Iterator[tuple[StageSpec, int]]:
    """Stages that keep rows, and how many zeros stand before the first: what follows a logged clock may read a row of none."""
    leads = leads_of(specs)
    is_logged = any(isinstance(clock, LoggedClock) for clock in clocks.values())
    counts = [given.count for spec in specs for given in spec.inputs] if is_logged else []
    for spec in specs:
        if spec.output == "hidden":
            yield spec, max(leads[spec.name], *counts, 0)


def lend(specs: Sequence[StageSpec], bound: Mapping[str, BoundStage]) -> None:
    """Let stages that read caches of others read them."""
    for spec in specs:
        if spec.borrows:
            bound[spec.name].borrow([_cache_of(specs, bound, given.stage, given.cache.name) for given in spec.borrows])


def _steps(specs: Sequence[StageSpec], memory: Memory, tokens: TokenLog, clocks: Mapping[str, Clock]) -> tuple[_Step, ...]:
    late = late_stages(specs)
    return tuple(
        _Step(
            spec=spec,
            clock=clocks[spec.name],
            bound=memory.bound[spec.name],
            sources=tuple(tokens if given.source is None else memory.logs[given.source] for given in spec.inputs),
            linear=are_linear(spec, clocks),
            output=memory.logs.get(spec.name),
            is_late=spec.name in late,
        )
        for spec in specs
    )


def are_linear(spec: StageSpec, clocks: Mapping[str, Clock]) -> bool:
    """Whether what each firing reads lies at places that are linear in its index."""
    of = (spec.name, *(given.source for given in spec.inputs if given.source is not None))
    return not any(isinstance(clocks[name], LoggedClock) for name in of)


def _cache_of(specs: Sequence[StageSpec], bound: Mapping[str, BoundStage], stage: str, name: str) -> Array:
    spec = next(spec for spec in specs if spec.name == stage)
    return bound[stage].caches[[cache.name for cache in spec.caches].index(name)]
