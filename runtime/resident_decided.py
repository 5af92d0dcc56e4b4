"""Decoding in a device's memory where the data decides: the host looks at one number of a row, and says who fires.

All state stays on the device, as in `resident.py`, and stages run in the same order. But whether a stage fires follows from
rows that others have just made. So behind each stage that decides, one number for every new row and sequence is copied to the
host, which waits for it, writes it into the clock, and tells the next stages where their rows are. Nothing is recorded: what a
step launches is not known before it has begun.

A state that a firing replaces is copied now and then, and after a rewind the stage runs again from a copy (`state_copies.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..contract import (
    BEGINNING,
    ClockSpec,
    Limits,
    StageSpec,
    leads_of,
    most_firings,
    resident_contract_of,
    room_of,
    sizes_of,
    vocab_size_of,
)
from ..errors import ConfigError
from .calls import run_in_calls
from .clocks import Clock, ClockLog, Clocks, token_clock
from .decoder import Observer, Written
from .device import Buffer, Device, Region, timed
from .device_copies import DeviceCopies
from .engines.resident import Phase, ResidentEngine, ResidentStage
from .host import check_same_shapes
from .reading import Source
from .resident_reading import ResidentReader
from .resident_state import StageState, bindings_of
from .rows import Array, Ids, RowLog, TokenLog
from .sampling import SamplingParams
from .schedules import Schedule
from .stage_frame import StageFrame
from .state_copies import COPIES_BYTES, StateCopies, interval_of

_WAY_OUT = "open a session for each of them: on a device, batches have no clocks of their own yet"
_FLOAT32_BYTES = 4
_PHASES: tuple[Phase, ...] = ("decode", "prefill")


@dataclass
class _Step:
    """A stage on the device, its clock, and what it is told; `end` is the firing after the last that was run."""

    spec: StageSpec
    clock: Clock
    state: StageState
    stages: Mapping[Phase, ResidentStage]
    reader: ResidentReader
    frame: StageFrame
    decides: Sequence[ClockLog]
    copies: StateCopies | None
    end: int = 0


class DecidedDecoder:
    """The interpreter of a program whose firings the data decides, on a device, as `Decoder`.

    Args:
        engines: in dataflow order.
        device: that they run on.
        tokens: the ids that the session has seen.
        limits: of the engines, with as many sequences as there are, which fire in step.
        turn: held in every call: sessions share a stream and the engines' working memory.
        copies_bytes: for copies of recurrent state.
    """

    def __init__(
        self,
        engines: Sequence[ResidentEngine],
        device: Device,
        tokens: TokenLog,
        limits: Limits,
        turn: AbstractContextManager[object],
        copies_bytes: int = COPIES_BYTES,
    ) -> None:
        self.observer: Observer | None = None
        self._turn = turn
        self._specs = [engine.spec for engine in engines]
        self._device, self._limits, self._tokens = device, limits, tokens
        self._batch, self._vocab_size = limits.batch, vocab_size_of(self._specs)
        self.fires, self.copied_bytes = {spec.name: 0 for spec in self._specs}, 0
        self.clocks = Clocks.allocate(self._specs, limits.capacity)
        self._by_ids = self.clocks.decided_by(None)
        self._leads = leads_of(self._specs)
        self._states = {
            engine.spec.name: StageState.new(engine, device, limits, self._specs, 1 if engine.in_place else 2)
            for engine in engines
        }
        most = most_firings(self._specs[-1], limits)
        self._answer = device.pinned((self._batch * most * self._vocab_size,), np.float32)
        self._logits = device.allocate(self._answer.nbytes)
        self._values = device.pinned((self._batch * limits.prefill,), np.float32)
        self._counting = self._numbers(limits)
        every = interval_of(self._specs, self._batch, limits.capacity, copies_bytes)
        self.steps = tuple(self._step(engine, every) for engine in engines)

    def _numbers(self, limits: Limits) -> Buffer:
        """0, 1, 2 and so on: as many as there are firings of a call, or rows in a span."""
        numbers = np.arange(max(self._rooms().values(), default=1) + limits.prefill)
        buffer = self._device.allocate(numbers.nbytes)
        self._device.copy(Region(buffer.address, numbers.nbytes), Region(numbers.ctypes.data, numbers.nbytes))
        self._device.synchronize()
        return buffer

    def _rooms(self) -> dict[str | None, int]:
        """Rows that there may be of each source, without those before the first."""
        rooms: dict[str | None, int] = {
            spec.name: spec.capacity_firings(self._limits.capacity) * spec.output_rows for spec in self._specs
        }
        return {**rooms, None: self._limits.capacity}

    def _step(self, engine: ResidentEngine, every: int) -> _Step:
        spec, limits = engine.spec, self._limits
        clock, state, rooms = self.clocks.of[spec.name], self._states[spec.name], self._rooms()
        sources = [self._source(given.source) for given in spec.inputs]
        room = [rooms[given.source] for given in spec.inputs]
        frame = self._frame(spec, max(room, default=1))
        stages = {phase: engine.bind(phase, self._batch) for phase in _PHASES}
        for stage in stages.values():
            for tensor, buffer in self._fixed(spec, frame):
                stage.bind(tensor, buffer)
        replaced = [tensor for cache, tensor in zip(spec.caches, state.caches, strict=True) if cache.recurrent]
        return _Step(
            spec=spec,
            clock=clock,
            state=state,
            stages=stages,
            reader=ResidentReader(spec, clock, sources, self._batch, limits, room),
            frame=frame,
            decides=self.clocks.decided_by(spec.name),
            copies=DeviceCopies(self._device, state, replaced, every) if replaced else None,
        )

    def _source(self, name: str | None) -> Source:
        if name is None:
            return Source(self._tokens, token_clock(), 1)
        rows = next(spec.output_rows for spec in self._specs if spec.name == name)
        return Source(RowLog.allocate(self._leads[name], 0, 1, 1), self.clocks.of[name], rows)

    def _frame(self, spec: StageSpec, longest: int) -> StageFrame:
        contract, most = resident_contract_of(spec), most_firings(spec, self._limits)
        letters = {"B": self._batch, "L": most, "N": most, **sizes_of(self._limits, self._specs, spec.name)}
        for name in spec.names():
            letters |= {f"M.{name}": longest, f"P.{name}": longest}
        return StageFrame(self._device, contract, letters, [name for name, _ in self._counted(spec)])

    def _counted(self, spec: StageSpec) -> Iterator[tuple[str, Buffer]]:
        """Inputs that count from 0."""
        for tensor in resident_contract_of(spec).inputs:
            if tensor.name == "offsets" or tensor.name.endswith(".within"):
                yield tensor.name, self._counting

    def _fixed(self, spec: StageSpec, frame: StageFrame) -> Iterator[tuple[str, Buffer]]:
        """What stays where it is for the decoder's life."""
        yield from frame.tensors().items()
        yield from self._counted(spec)
        if spec.output == "logits":
            yield "logits", self._logits

    def run(self, position: int, tokens: int, wanted: Ids) -> npt.NDArray[np.float32]:
        """As `Decoder.run`; more tokens than a call of the engines takes are run in several calls."""
        with self._turn:
            return run_in_calls(self._call, position, tokens, wanted, self._room)

    def _room(self, position: int) -> int:
        """Tokens that one call may take from a position on."""
        return min(self._limits.prefill, room_of(self._specs, position))

    def _call(self, position: int, tokens: int, wanted: Ids) -> npt.NDArray[np.float32]:
        logits = np.empty((self._batch, len(wanted), self._vocab_size), np.float32)
        if self._by_ids and position != BEGINNING:
            start = self._tokens.lead + position
            ids = self._tokens.array[:, start : start + tokens].T
            for log in self._by_ids:
                log.append_each(position, tokens, ids, _WAY_OUT)
        for step in self.steps:
            firings = step.clock.firings(position, tokens)
            for part in self._parts(step, firings):
                self._fire(step, part, firings, wanted, logits)
            if position != BEGINNING:
                for log in step.decides:
                    log.append_each(position, tokens, self._column(step, firings, log.spec.column), _WAY_OUT)
        self._wait()
        return logits

    def _parts(self, step: _Step, firings: range) -> Iterator[range]:
        """Firings in calls of the engine, and before them those that have to run again for what it remembers."""
        if not firings:
            return
        calls: Iterable[range] = [firings]
        if step.copies is not None:
            calls = step.copies.calls(firings, step.end)
        elif step.spec.resets is not None and step.end != firings.start:
            again = range(firings.start - firings.start % step.spec.resets, firings.start)
            calls = [again, firings] if again else [firings]
        for call in calls:
            yield from step.reader.parts(call)

    def _fire(self, step: _Step, part: range, firings: range, wanted: Ids, logits: Array) -> None:
        """Run some of the firings of a call, or some before them, again; fill in the logits of those that are wanted."""
        rows = firings.start + wanted
        is_here = (rows >= part.start) & (rows < part.stop)
        here = (rows[is_here] - part.start) if step.spec.output == "logits" else wanted[:0]
        self._run(step, part, here if len(here) else np.zeros(1, np.int64))
        if len(here):
            logits[:, is_here] = self._answered(len(here))

    def _run(self, step: _Step, part: range, rows: Ids) -> None:
        """Queue a run of a stage."""
        if step.frame.is_queued:
            self._wait()
        told, spec = step.reader.told(part), step.spec
        step.end = -1  # if the call fails, the state may be anything
        step.frame.tell({"position": np.full(self._batch, part.start), "logit_rows": rows, **told.numbers})
        stage = step.stages["decode" if len(part) == 1 else "prefill"]
        for tensor, buffer in bindings_of(spec, self._states):
            stage.bind(tensor, buffer)
        if self.observer is None:
            stage.run(len(part), len(rows), told.spans)
        else:
            elapsed_ns = timed(self._device, lambda: stage.run(len(part), len(rows), told.spans))
        step.state.settle()
        step.state.swap()
        step.end = part.stop
        self.fires[spec.name] += len(part)
        self.copied_bytes += step.state.rewritten_bytes
        if self.observer is not None:
            self._wait()  # the observer finds the new rows
            self.observer(spec, len(part), elapsed_ns)

    def _wait(self) -> None:
        self._device.synchronize()
        for step in self.steps:
            step.frame.is_queued = False

    def _answered(self, wanted: int) -> npt.NDArray[np.float32]:
        """The logits of the run that was queued last, `[B, wanted, V]`: a view that the next one overwrites."""
        answer = self._answer[: self._batch * wanted * self._vocab_size]
        self._device.copy(Region(answer.ctypes.data, answer.nbytes), Region(self._logits.address, answer.nbytes))
        self._wait()
        return answer.reshape(self._batch, wanted, self._vocab_size)

    def _column(self, step: _Step, firings: range, column: int) -> npt.NDArray[np.float32]:
        """A column of the rows that firings gave, `[n, B]`: a view that the next call overwrites."""
        count, log = len(firings), step.state.log
        assert log is not None
        _, _, rows, width = log.shape
        first = (self._leads[step.spec.name] + firings.start) * width + column % width
        values = self._values[: self._batch * count].reshape(self._batch, count)
        for sequence in range(self._batch if count else 0):
            there = step.state.newest(log).address + (sequence * rows * width + first) * _FLOAT32_BYTES
            here = values[sequence].ctypes.data
            self._device.copy(
                Region(here, _FLOAT32_BYTES, count, _FLOAT32_BYTES),
                Region(there, _FLOAT32_BYTES, count, width * _FLOAT32_BYTES),
            )
        self._wait()
        return values.T

    draws = False

    def draw(self, position: int, count: int, params: SamplingParams, uniform: npt.NDArray[np.float64]) -> Ids:
        """As `Decoder.draw`: it draws none."""
        raise ConfigError(
            "where the data decides which stages fire, the host looks at every step; draw tokens from the logits, on the host"
        )

    def _rows_within(self, step: _Step, position: int) -> int:
        return self._leads[step.spec.name] + step.clock.firings_within(position) * step.spec.output_rows

    def rows(self, stage: int, position: int) -> Array | None:
        """As `Decoder.rows`; a copy."""
        step = self.steps[stage]
        with self._turn:
            return step.state.read_rows(self._rows_within(step, position))

    def write_rows(self, stage: int, rows: Array) -> None:
        """As `Decoder.write_rows`."""
        with self._turn:
            self.steps[stage].state.write_rows(rows)

    def schedule(self, position: int) -> Schedule:
        """As `Decoder.schedule`."""
        with self._turn:
            return self.clocks.schedule(position, self._tokens, lambda clock: self._decided_by(clock, position))

    def _decided_by(self, clock: ClockSpec, position: int) -> Array:
        """The values of the rows that the first so many tokens made, of the first sequence."""
        step = next(step for step in self.steps if step.spec.name == clock.stage)
        rows = step.state.read_rows(self._rows_within(step, position))
        assert rows is not None
        found: Array = rows[self._leads[step.spec.name] :, 0, clock.column]
        return found

    def follow(self, schedule: Schedule | None) -> None:
        """As `Decoder.follow`."""
        self.clocks.follow(schedule)

    def read(self, position: int) -> Written:
        """As `Decoder.read`."""
        with self._turn:
            for step in self.steps:
                self._settle(step, step.clock.firings_within(position))
            rows = tuple(step.state.read_rows(self._rows_within(step, position)) for step in self.steps)
            caches = tuple(step.state.read_caches(step.clock.firings_within(position)) for step in self.steps)
        return Written(rows, caches, self.clocks.made_within(position))

    def _settle(self, step: _Step, fired: int) -> None:
        """Let a recurrent state be that of so many firings, if it is of more: they were rewound."""
        if step.copies is None or step.end == fired:
            return
        first = step.end = step.copies.go_back(fired)
        for part in self._parts(step, range(first, fired)):
            self._run(step, part, np.zeros(1, np.int64))
        self._wait()

    def write(self, written: Written, position: int) -> None:
        """As `Decoder.write`."""
        check_same_shapes(written, self.read(0))
        self.clocks.restore(written.boundaries)
        with self._turn:
            self._write(written, position)

    def _write(self, written: Written, position: int) -> None:
        for step, rows, caches in zip(self.steps, written.rows, written.caches, strict=True):
            if rows is not None:
                step.state.write_rows(rows)
            step.state.write_caches(caches)
            step.end = -1  # whatever they hold, a stage that resets runs again from its last reset
            if step.copies is not None:
                step.end = step.clock.firings_within(position)
                step.copies.begin_at(step.end)
        self._wait()

    def close(self) -> None:
        """As `Decoder.close`."""
        self.steps, self._states = (), {}
        del self._logits, self._counting

    @property
    def state_bytes(self) -> dict[str, int]:
        """As `Decoder.state_bytes`; without copies of recurrent state."""
        return {name: state.nbytes for name, state in self._states.items()}
