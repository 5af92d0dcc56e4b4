"""Decoding in a device's memory: all state stays there, at fixed addresses, and a decode step is one launch.

Every engine finds its rows by itself (`export/resident.py`), so a call is: one copy that brings positions and token ids, the
engines that fire, one copy that takes the logits back. Which engines fire is the only thing that differs between decode steps:
each firing set is recorded once and then launched as a whole. Where an engine can't update a cache in place, its caches take
turns between two buffers, and a recording holds for one turn of each (docs/adr/0007, 0008).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ..contract import Limits, StageSpec, leads_of
from ..errors import CapacityError, ConfigError
from .decoder import Observer, Written
from .device import Buffer, Device, Region, Work
from .engines.resident import Phase, ResidentEngine
from .frame import Frame
from .host import check_same_shapes
from .resident_state import StageState
from .rows import Array, TokenLog

_PHASES: tuple[Phase, ...] = ("decode", "prefill")
_PREFILL = 512
"""Tokens of one call of engines that take any number: each may want logits, for which there is memory on both sides."""


class ResidentEngines:
    """The engines of a bundle on one device, as `DecoderFactory`."""

    def __init__(self, engines: Sequence[ResidentEngine], device: Device, dim: int, vocab_size: int) -> None:
        self.engines, self.device, self.dim, self.vocab_size = tuple(engines), device, dim, vocab_size
        self.specs: Sequence[StageSpec] = [engine.spec for engine in engines]

    def decoder(self, tokens: TokenLog, batch: int, capacity: int) -> ResidentDecoder:
        """As `DecoderFactory.decoder`."""
        return ResidentDecoder(self, tokens, self._limits(batch, capacity))

    def _limits(self, batch: int, capacity: int) -> Limits:
        """What the engines were built for, with as many sequences as there are."""
        built = self.engines[0].limits
        if built is None:
            return Limits(batch=batch, capacity=capacity, prefill=min(capacity, _PREFILL))
        if batch > built.batch:
            raise ConfigError(
                f"the engines take at most {built.batch} sequences, got a batch of {batch}; build them with --max-batch {batch}"
            )
        if capacity > built.capacity:
            raise CapacityError(
                f"the engines hold at most {built.capacity} tokens, got a capacity of {capacity}; "
                f"ask for less, or build them with --capacity {capacity}"
            )
        return Limits(batch=batch, capacity=built.capacity, prefill=built.prefill)


class ResidentDecoder:
    """The interpreter of the manifest's dataflow program on a device, as `Decoder`."""

    def __init__(self, engines: ResidentEngines, tokens: TokenLog, limits: Limits) -> None:
        self.observer: Observer | None = None
        self._specs, self._device, self._limits, self._tokens = engines.specs, engines.device, limits, tokens
        self._vocab_size, self._index = engines.vocab_size, {spec.name: index for index, spec in enumerate(self._specs)}
        self._leads = leads_of(self._specs)
        self.fires = {spec.name: 0 for spec in self._specs}
        self.copied_bytes = 0
        self._states = [self._state(engine, engines.dim) for engine in engines.engines]
        self._frames = {phase: Frame(self._device, self._specs, phase, limits, engines.vocab_size) for phase in _PHASES}
        self._stages = {phase: [engine.bind(phase, limits.batch) for engine in engines.engines] for phase in _PHASES}
        self._bind_fixed()
        self._recorded: dict[tuple[object, ...], Work] = {}
        if self._device.has_graphs:
            self._warm_up()
            for engine in engines.engines:
                engine.keep_compiled()

    def _state(self, engine: ResidentEngine, dim: int) -> StageState:
        sizes = self._limits.sizes(self._specs, engine.spec.name)
        return StageState(engine, self._device, self._limits.batch, sizes["S"], sizes["R"], dim)

    def _bind_fixed(self) -> None:
        """Bind what stays where it is for the decoder's life."""
        longest = max(spec.most_firings(self._limits.prefill) for spec in self._specs)
        offsets = np.arange(longest)
        self._offsets = self._device.allocate(offsets.nbytes)
        self._device.copy(Region(self._offsets.address, offsets.nbytes), Region(offsets.ctypes.data, offsets.nbytes))
        self._device.synchronize()
        for phase in _PHASES:
            for index, stage in enumerate(self._stages[phase]):
                for tensor, buffer in self._frames[phase].tensors(index).items():
                    stage.bind(tensor, buffer)
                if any(given.source is not None for given in self._specs[index].inputs):
                    stage.bind("offsets", self._offsets)

    def run(self, position: int, tokens: int, wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """As `Decoder.run`; more tokens than a call of the engines takes are run in several calls."""
        logits = np.empty((self._limits.batch, len(wanted), self._vocab_size), np.float32)
        done = 0
        for start in range(0, tokens, self._limits.prefill):
            count = min(self._limits.prefill, tokens - start)
            here = wanted[(wanted >= start) & (wanted < start + count)] - start
            answer = self._call(position + start, count, here if len(here) else np.array([count - 1]))
            logits[:, done : done + len(here)] = answer[:, : len(here)]
            done += len(here)
        return logits

    def _call(self, position: int, tokens: int, wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        phase: Phase = "decode" if tokens == 1 else "prefill"
        firings, frame = [spec.firings(position, tokens) for spec in self._specs], self._frames[phase]
        frame.tell(firings, self._tokens, wanted)
        if phase == "decode" and self._device.has_graphs and self.observer is None:
            self._launch(firings)
        else:
            self._queue(phase, firings, len(wanted))
        self._device.synchronize()
        for spec, state, fired in zip(self._specs, self._states, firings, strict=True):
            self.fires[spec.name] += len(fired)
            self.copied_bytes += state.rewritten_bytes if fired else 0
        return frame.logits(len(wanted))

    def _queue(self, phase: Phase, firings: Sequence[range], wanted: int) -> None:
        frame = self._frames[phase]
        frame.upload()
        for index, fired in enumerate(firings):
            if fired:
                self._run_stage(phase, index, len(fired), wanted)
        frame.download(wanted)

    def _run_stage(self, phase: Phase, index: int, firings: int, wanted: int) -> None:
        spec, state, stage = self._specs[index], self._states[index], self._stages[phase][index]
        for tensor, buffer in self._bindings(index):
            stage.bind(tensor, buffer)
        if self.observer is None:
            stage.run(firings, wanted)
            state.swap()
        else:
            self._device.synchronize()
            began = time.perf_counter_ns()
            stage.run(firings, wanted)
            self._device.synchronize()
            elapsed_ns = time.perf_counter_ns() - began
            state.swap()  # the observer finds the new rows
            self.observer(spec, firings, elapsed_ns)

    def _bindings(self, index: int) -> Iterator[tuple[str, Buffer]]:
        """A stage's own state, and the logs it reads as they stand now."""
        yield from self._states[index].bindings()
        for given in self._specs[index].inputs:
            if given.source is not None:
                yield f"rows.{given.source}", self._states[self._index[given.source]].newest_log()

    def _launch(self, firings: Sequence[range]) -> None:
        """Run a decode step as it was recorded; the first of its kind runs as it is, and is recorded."""
        key = (tuple(bool(fired) for fired in firings), self._turns)
        if key not in self._recorded:
            self._recorded[key] = self._record(firings)
            return
        self._recorded[key]()
        for state, fired in zip(self._states, firings, strict=True):
            if fired:
                state.swap()

    def _record(self, firings: Sequence[range]) -> Work:
        """Run a decode step, which lets engines get ready, and record it."""
        turns = self._turns
        self._queue("decode", firings, 1)
        self._device.synchronize()
        for stage, fired in zip(self._stages["decode"], firings, strict=True):
            if fired:
                stage.check_recordable()
        self._turns = turns
        return self._device.capture(lambda: self._queue("decode", firings, 1))

    @property
    def _turns(self) -> tuple[int, ...]:
        """Which buffers of every stage are the newer ones."""
        return tuple(state.turn for state in self._states)

    @_turns.setter
    def _turns(self, turns: tuple[int, ...]) -> None:
        for state, turn in zip(self._states, turns, strict=True):
            state.turn = turn

    def _warm_up(self) -> None:
        """Record every firing set of a period, in both turns of caches that take turns.

        The rows this writes are overwritten before anything reads them. Turns that only a prefill leads to are recorded when
        they are first met.
        """
        period = math.lcm(*(spec.stride for spec in self._specs)) * max(state.sides for state in self._states)
        for position in range(min(period, self._limits.capacity)):
            self._call(position, 1, np.zeros(1, np.int64))
        self.fires, self.copied_bytes = dict.fromkeys(self.fires, 0), 0

    @property
    def recorded(self) -> int:
        """Decode steps that are launched as a whole: one for each firing set, and turn of caches that take turns."""
        return len(self._recorded)

    def rows(self, stage: int, position: int) -> Array | None:
        """As `Decoder.rows`; a copy."""
        state, spec = self._states[stage], self._specs[stage]
        if state.log is None:
            return None
        rows = self._leads[spec.name] + len(spec.firings(0, position)) * spec.output_rows
        return state.read(state.log, rows)[:, 0].transpose(1, 0, 2)

    def write_rows(self, stage: int, rows: Array) -> None:
        """As `Decoder.write_rows`."""
        state = self._states[stage]
        if state.log is not None:
            state.write(state.log, rows.transpose(1, 0, 2)[:, None])

    def read(self, position: int) -> Written:
        """As `Decoder.read`."""
        rows = tuple(self.rows(stage, position) for stage in range(len(self._specs)))
        return Written(rows, tuple(self._read_caches(state, spec, position) for state, spec in self._paired()))

    def _read_caches(self, state: StageState, spec: StageSpec, position: int) -> tuple[Array, ...]:
        return tuple(state.read(tensor, spec.capacity_rows(position)) for tensor in state.caches)

    def _paired(self) -> Iterator[tuple[StageState, StageSpec]]:
        return zip(self._states, self._specs, strict=True)

    def write(self, written: Written) -> None:
        """As `Decoder.write`."""
        check_same_shapes(written, self.read(0))
        for stage, rows in enumerate(written.rows):
            if rows is not None:
                self.write_rows(stage, rows)
        for state, caches in zip(self._states, written.caches, strict=True):
            for tensor, saved in zip(state.caches, caches, strict=True):
                state.write(tensor, saved)

    def close(self) -> None:
        """As `Decoder.close`."""
        self._states, self._stages, self._frames, self._recorded = [], {}, {}, {}
        del self._offsets

    @property
    def state_bytes(self) -> dict[str, int]:
        """As `Decoder.state_bytes`."""
        return {spec.name: state.nbytes for state, spec in self._paired()} if self._states else {}
