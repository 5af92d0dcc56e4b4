"""Decoding in the host's memory: rows stand in logs, and engines read and write them where they are."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from ..contract import StageSpec, late_stages, leads_of, page_of, vocab_size_of
from ..errors import CapacityError, ConfigError, InputError
from .beside import Beside
from .calls import run_in_calls
from .decoder import Observer, Written
from .engines.base import BoundStage, Engine
from .rows import Array, Block, Ids, RowLog, TokenLog
from .sampling import SamplingParams


@dataclass
class _Step:
    """A stage, its engine's caches, and the logs it reads and writes; `end` is the firing after the last that was run.

    It `is_late` if no other stage reads in a decode step what it gives in that step.
    """

    spec: StageSpec
    bound: BoundStage
    sources: tuple[RowLog | TokenLog, ...]
    output: RowLog | None
    is_late: bool
    end: int = 0

    def goes_on(self, firings: range) -> bool:
        """Whether its caches hold all that these firings remember, so that it writes no rows but theirs."""
        resets = self.spec.resets
        return resets is None or firings.start == self.end or firings.start % resets == 0


class HostDecoder:
    """The interpreter of the manifest's dataflow program, as `Decoder`.

    Args:
        engines: in dataflow order.
        tokens: the ids that the session has seen.
        batch: sequences.
        capacity: tokens that there is room for.
        overlap: whether stages that a decode step does not wait for run in a thread of their own, beside the others.
    """

    def __init__(self, engines: Sequence[Engine], tokens: TokenLog, batch: int, capacity: int, overlap: bool = False) -> None:
        self.observer: Observer | None = None
        specs = [engine.spec for engine in engines]
        self.fires = {spec.name: 0 for spec in specs}
        self._batch, self._vocab_size = batch, vocab_size_of(specs)
        self._page, self._one = page_of(specs), Block.of(np.zeros(1, np.int64))
        self._steps = _allocate(engines, tokens, batch, capacity)
        self._beside = Beside() if overlap and any(step.is_late for step in self._steps) else None

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
        beside = self._beside if tokens == 1 and self.observer is None else None
        try:
            for step in self._steps:
                firings = step.spec.firings(position, tokens)
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
        inputs = [
            log.rows(first * given.count - given.shift, count * given.count)
            for given, log in zip(spec.inputs, step.sources, strict=True)
        ]
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

    draws = False

    def draw(
        self, position: int, count: int, params: SamplingParams, uniform: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.int64]:
        """As `Decoder.draw`: there is no way to the next token but the host's own."""
        raise ConfigError("these engines draw no tokens; draw them from the logits")

    def rows(self, stage: int, position: int) -> Array | None:
        """As `Decoder.rows`; a view."""
        step = self._steps[stage]
        if step.output is None:
            return None
        fired = step.spec.firings_within(position)
        return step.output.array[: step.output.lead + fired * step.spec.output_rows]

    def write_rows(self, stage: int, rows: Array) -> None:
        """As `Decoder.write_rows`."""
        output = self._steps[stage].output
        if output is not None:
            output.array[: rows.shape[0]] = rows

    def read(self, position: int) -> Written:
        """As `Decoder.read`."""
        rows = [self.rows(stage, position) for stage in range(len(self._steps))]
        caches = tuple(tuple(cache.copy() for cache in self._used_caches(step, position)) for step in self._steps)
        return Written(tuple(None if array is None else array.copy() for array in rows), caches)

    def _used_caches(self, step: _Step, position: int) -> Iterator[Array]:
        """The rows of its caches that the tokens before a position have written."""
        for cache, array in zip(step.spec.caches, step.bound.caches, strict=True):
            yield array[:, :, : cache.length(step.spec.firings_within(position))]

    def write(self, written: Written) -> None:
        """As `Decoder.write`."""
        check_same_shapes(written, self.read(0))
        for stage, rows in enumerate(written.rows):
            if rows is not None:
                self.write_rows(stage, rows)
        for step, caches in zip(self._steps, written.caches, strict=True):
            for cache, saved in zip(step.bound.caches, caches, strict=True):
                cache[:, :, : saved.shape[2]] = saved
            step.end = -1  # whatever they hold, a stage that resets runs again from its last reset

    def close(self) -> None:
        """As `Decoder.close`."""
        self._steps = ()
        if self._beside is not None:
            self._beside.close()

    @property
    def copied_bytes(self) -> int:
        """As `Decoder.copied_bytes`."""
        return sum(step.bound.copied_bytes for step in self._steps)

    @property
    def state_bytes(self) -> dict[str, int]:
        """As `Decoder.state_bytes`; memory that was never written is not committed."""
        return {
            step.spec.name: sum(cache.nbytes for cache in step.bound.caches) + (step.output.array.nbytes if step.output else 0)
            for step in self._steps
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


def _allocate(engines: Sequence[Engine], tokens: TokenLog, batch: int, capacity: int) -> tuple[_Step, ...]:
    specs = [engine.spec for engine in engines]
    leads, late = leads_of(specs), late_stages(specs)
    logs = {
        spec.name: RowLog(leads[spec.name], spec.capacity_firings(capacity) * spec.output_rows, batch, spec.width)
        for spec in specs
        if spec.output == "hidden"
    }
    bound = {engine.spec.name: engine.bind(batch, engine.spec.capacity_firings(capacity)) for engine in engines}
    for spec in specs:
        if spec.borrows:
            bound[spec.name].borrow([_cache_of(specs, bound, given.stage, given.cache.name) for given in spec.borrows])
    return tuple(
        _Step(
            spec=spec,
            bound=bound[spec.name],
            sources=tuple(tokens if given.source is None else logs[given.source] for given in spec.inputs),
            output=logs.get(spec.name),
            is_late=spec.name in late,
        )
        for spec in specs
    )


def _cache_of(specs: Sequence[StageSpec], bound: dict[str, BoundStage], stage: str, name: str) -> Array:
    spec = next(spec for spec in specs if spec.name == stage)
    return bound[stage].caches[[cache.name for cache in spec.caches].index(name)]
