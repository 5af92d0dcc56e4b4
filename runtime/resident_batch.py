"""Sequences that come and go in a device's memory, each at a position of its own.

Slot b owns row b of every cache and log. In a decode step a stage runs once for each range of slots that holds those which
fire, on views of their state at fixed addresses: what differs between steps is which ranges, and each set of them is recorded
once and then launched as a whole. Stages run one after the other, those that nobody waits for too.

Where an engine can't write in place, what it writes of a range goes to scratch memory and is copied back. Buffers that take
turns, as where all sequences go in step, would need a turn for each slot and stage, and a call for each run of equal turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from ..contract import Limits, StageSpec, room_of, rows_within, vocab_size_of
from .batch_frame import BatchFrame, Ranges
from .batches.ranges import Range, may_overfire, ranges_of
from .calls import run_in_calls
from .decoder import Observer, Written
from .device import Buffer, Device, Region, timed
from .engines.resident import Phase, ResidentEngine, ResidentStage
from .frame import Frame
from .host import check_same_shapes
from .recordings import Recordings
from .resets import needed_from, to_run_again
from .resident_state import StageState, bindings_of, read_states, write_states
from .rows import Ids, TokenLog
from .slot_alignment import require_aligned_slots

MOST_RECORDED = 64
"""Decode steps that are kept recorded; a steady batch has as many as the coarsest stride has phases."""
_MOST_REMEMBERED = 256
"""Sets of slots that fire, whose ranges are known; and ranges, whose views are."""


class _Step(NamedTuple):
    """By stage: where each slot fires next `[stages, slots]`, which of them do, and the ranges that are run for that."""

    firsts: Ids
    fires: npt.NDArray[np.bool_]
    ranges: Ranges


class ResidentBatchDecoder:
    """The interpreter of the manifest's dataflow program for slots on a device, as `BatchDecoder`.

    Args:
        engines: in dataflow order; for several slots their sequences may stand at positions of their own.
        device: that they run on.
        tokens: the ids of all slots.
        limits: of the engines, with as many sequences as there are slots.
        records: whether decode steps are recorded.
        turn: held during every call, for others use the device too.

    Raises:
        ConfigError: a slot's state would begin where the device lets no tensor begin.
    """

    def __init__(
        self,
        engines: Sequence[ResidentEngine],
        device: Device,
        tokens: TokenLog,
        limits: Limits,
        records: bool,
        turn: AbstractContextManager[object],
    ) -> None:
        require_aligned_slots(engines, limits, device.alignment)
        self.observer: Observer | None = None
        self._engines, self._device, self._turn, self._tokens, self._limits = engines, device, turn, tokens, limits
        self._specs, slots = [engine.spec for engine in engines], limits.batch
        self._fires = {spec.name: 0 for spec in self._specs}
        self.copied_bytes = 0
        self._states = [StageState.new(engine, device, limits, self._specs, sides=1) for engine in engines]
        turning = zip(self._states, engines, strict=True)
        scratch = max((state.scratch_bytes for state, engine in turning if not engine.in_place), default=0)
        self._scratch = device.allocate(scratch)
        vocab_size = vocab_size_of(self._specs)
        self._prompt = Frame(device, self._specs, "prefill", msgspec.structs.replace(limits, batch=1), vocab_size)
        self._frame = BatchFrame(device, self._specs, slots, vocab_size)
        self._offsets = self._new_offsets()
        self._stages: dict[tuple[Phase, int, int], ResidentStage] = {}
        self._parts: dict[Range, dict[str, StageState]] = {}
        self._next = np.zeros((len(engines), slots), np.int64)  # where each stage fires next for each slot
        self._ends = np.zeros((len(engines), slots), np.int64)  # the firing after the last of those its caches are of
        self._strides = self._by_stage(lambda spec: spec.stride)
        self._delays = self._by_stage(lambda spec: spec.delay)
        self._room = self._by_stage(lambda spec: spec.firings_within(tokens.array.shape[1] - tokens.lead))
        self._may_overfire = self._by_stage(may_overfire) > 0
        self._ranges: dict[bytes, Ranges] = {}
        self._records, self._recordings = records, Recordings(device, MOST_RECORDED)

    def _by_stage(self, number: Callable[[StageSpec], int]) -> Ids:
        """`[stages, 1]`"""
        return np.array([[number(spec)] for spec in self._specs], np.int64)

    def _new_offsets(self) -> Buffer:
        numbers = np.arange(max(spec.most_firings(self._limits.prefill) for spec in self._specs))
        offsets = self._device.allocate(numbers.nbytes)
        self._device.copy(Region(offsets.address, numbers.nbytes), Region(numbers.ctypes.data, numbers.nbytes))
        self._device.synchronize()
        return offsets

    def prefill(self, slot: int, position: int, tokens: int, wanted: Ids) -> npt.NDArray[np.float32]:
        """As `BatchDecoder.prefill`; more tokens than a call of the engines takes are run in several calls."""
        needed = needed_from(self._specs[-1], position, tokens, wanted)

        def call(start: int, count: int, here: Ids) -> npt.NDArray[np.float32]:
            return self._call(slot, start, count, here, needed)

        def room(start: int) -> int:
            return min(self._limits.prefill, room_of(self._specs, start))

        with self._turn:
            logits: npt.NDArray[np.float32] = run_in_calls(call, position, tokens, wanted, room)[0]
            return logits

    def _call(self, slot: int, position: int, tokens: int, wanted: Ids, needed: int) -> npt.NDArray[np.float32]:
        """One call of the engines for a slot; of the stage that gives logits none, if what is `needed` of it comes later."""
        asked = len(wanted)
        wanted = wanted if asked else np.array([tokens - 1])  # engines are built for one row at least
        firings = [spec.firings(position, tokens) for spec in self._specs]
        ends = [max(fired.start, fired.stop) for fired in firings]
        if firings[-1].stop <= needed:
            self._ends[-1, slot], firings[-1] = -1, range(0)
        self._replay(slot, firings)
        self._run_prompt(slot, firings, wanted)
        for index, fired in enumerate(firings):
            self._count(index, [(slot, slot + 1)] if fired else [], len(fired))
        self._next[:, slot] = ends
        return self._prompt.logits(len(wanted))[:, :asked].copy()  # the frame is written over by the next

    def _replay(self, slot: int, firings: Sequence[range]) -> None:
        """Run stages that reset again from their last reset, where a slot does not go on from where it was."""
        for index, (spec, fired) in enumerate(zip(self._specs, firings, strict=True)):
            for part in to_run_again(spec, fired, int(self._ends[index, slot]), spec.most_firings(self._limits.prefill)):
                only = [part if place == index else range(0) for place in range(len(self._specs))]
                self._run_prompt(slot, only, np.zeros(1, np.int64))
            if fired:
                self._ends[index, slot] = fired.stop

    def _run_prompt(self, slot: int, firings: Sequence[range], wanted: Ids) -> None:
        """Run the stages that fire for a slot, and wait for them."""
        self._prompt.tell(firings, self._tokens.of(slot), wanted)
        self._prompt.upload()
        for index, fired in enumerate(firings):
            if fired:
                self._run("prefill", index, (slot, slot + 1), len(fired), len(wanted))
        self._prompt.download(len(wanted))
        self._device.synchronize()

    def step(self, slots: Ids, positions: Ids) -> npt.NDArray[np.float32]:
        """As `BatchDecoder.step`; a step of ranges that were recorded is one launch."""
        with self._turn:
            step = self._plan(slots, positions)
            self._replay_all(slots, step)
            self._frame.lay_out(step.ranges)
            self._frame.tell(step.firsts, self._tokens)
            self._launch(step.ranges)
            self._device.synchronize()
            for index, (ranges, fired) in enumerate(zip(step.ranges, step.fires.sum(1).tolist(), strict=True)):
                self._count(index, ranges, fired)
            self._next[:, slots] = step.firsts[:, slots] + step.fires[:, slots]
            return self._frame.logits(slots)

    def _plan(self, slots: Ids, positions: Ids) -> _Step:
        firsts, fires = self._next.copy(), np.zeros(self._next.shape, np.bool_)
        firsts[:, slots] = self._next_firings(positions)
        fires[:, slots] = self._next_firings(positions + 1) > firsts[:, slots]
        return _Step(firsts, fires, self._ranges_for(fires, self._may_overfire & (firsts < self._room)))

    def _next_firings(self, positions: Ids) -> Ids:
        """By stage, the firing that the token at a position causes, or else the first after it, `[stages, n]`."""
        firings: Ids = -((self._delays - positions) // self._strides)
        return firings

    def _ranges_for(self, fires: npt.NDArray[np.bool_], passable: npt.NDArray[np.bool_]) -> Ranges:
        """In a steady batch they come again and again."""
        key = fires.tobytes() + passable.tobytes()
        if key not in self._ranges:
            if len(self._ranges) >= _MOST_REMEMBERED:
                self._ranges.clear()
            self._ranges[key] = tuple(tuple(ranges_of(*of_stage)) for of_stage in zip(fires, passable, strict=True))
        return self._ranges[key]

    def _replay_all(self, slots: Ids, step: _Step) -> None:
        if all(spec.resets is None for spec in self._specs):
            return
        for slot in slots.tolist():
            firsts, fires = step.firsts[:, slot].tolist(), step.fires[:, slot].tolist()
            self._replay(slot, [range(first, first + fired) for first, fired in zip(firsts, fires, strict=True)])

    def _launch(self, ranges: Ranges) -> None:
        """Do a step as it was recorded; the first of its kind is done as it is, and recorded.

        None is recorded, and none done as recorded, while someone observes: a recording has no stages to wait for.
        """

        def work() -> None:
            self._frame.upload()
            for index, slots in calls:
                self._run("decode", index, slots, 1, 1)
            self._frame.download()

        def ran() -> Iterator[ResidentStage]:
            return (self._bound("decode", index, last - first) for index, (first, last) in calls)

        calls = [(index, slots) for index, of_stage in enumerate(ranges) for slots in of_stage]
        if not self._records or self.observer is not None:
            work()
        elif not self._recordings.launch(ranges):
            self._recordings.record(ranges, work, ran)

    def _run(self, phase: Phase, index: int, slots: Range, firings: int, wanted: int) -> None:
        """Queue a run of a stage for a range of slots, on its views of all that it reads and writes."""
        spec, states = self._specs[index], self._states_of(slots)
        stage = self._bound(phase, index, slots[1] - slots[0])
        told = self._frame.tensors(index, slots) if phase == "decode" else self._prompt.tensors(index).items()
        for tensor, buffer in chain(told, bindings_of(spec, states)):
            stage.bind(tensor, buffer)

        def run() -> None:
            stage.run(firings, wanted)
            states[spec.name].settle()

        if self.observer is None:
            run()
        else:
            elapsed_ns = timed(self._device, run)
            self.observer(spec, firings * (slots[1] - slots[0]), elapsed_ns)

    def _bound(self, phase: Phase, index: int, batch: int) -> ResidentStage:
        """An engine readied for so many slots: a recording holds its shapes, so that those of other ranges have their own."""
        key, spec = (phase, index, batch), self._specs[index]
        if key not in self._stages:
            stage = self._engines[index].bind(phase, batch)
            if any(given.source is not None for given in spec.inputs):
                stage.bind("offsets", self._offsets)
            if spec.output == "logits":
                stage.bind("logit_rows", self._frame.wanted)
            self._stages[key] = stage
        return self._stages[key]

    def _states_of(self, slots: Range) -> Mapping[str, StageState]:
        """The state of a range of slots, by stage."""
        if slots not in self._parts:
            if len(self._parts) >= _MOST_REMEMBERED:
                self._parts.clear()
            self._parts[slots] = {
                engine.spec.name: state.slots(*slots, None if engine.in_place else self._scratch)
                for engine, state in zip(self._engines, self._states, strict=True)
            }
        return self._parts[slots]

    def _count(self, index: int, ranges: Sequence[Range], firings: int) -> None:
        """Of a stage's runs: what fired, and what was copied: all that is written apart by the engine, and then copied back."""
        self._fires[self._specs[index].name] += firings
        if not self._engines[index].in_place:
            slots = sum(last - first for first, last in ranges)
            self.copied_bytes += 2 * slots * (self._states[index].nbytes // self._limits.batch)

    @property
    def fires(self) -> dict[str, int]:
        """As `BatchDecoder.fires`."""
        return dict(self._fires)

    @property
    def recorded(self) -> int:
        """Decode steps that are launched as a whole."""
        return len(self._recordings)

    def decided(self, slot: int, position: int) -> frozenset[str]:
        """As `BatchDecoder.decided`."""
        return frozenset()

    def read(self, slot: int, position: int) -> Written:
        """As `BatchDecoder.read`."""
        with self._turn:
            return read_states(self._specs, self._of_slot(slot), position)

    def write(self, slot: int, written: Written, position: int) -> None:
        """As `BatchDecoder.write`."""
        check_same_shapes(written, self.read(slot, 0))
        with self._turn:
            write_states(self._of_slot(slot), written)
        self._ends[:, slot] = -1
        self._next[:, slot] = [spec.firings_within(position) for spec in self._specs]

    def fork(self, source: int, target: int, position: int) -> None:
        """As `BatchDecoder.fork`; the copy stays on the device."""
        theirs, ours, rows = self._of_slot(source), self._of_slot(target), rows_within(self._specs, position)
        with self._turn:
            for index, spec in enumerate(self._specs):
                ours[index].copy_from(theirs[index], rows[index], spec.firings_within(position))
                self._next[index, target] = spec.firings_within(position)
            self._device.synchronize()
        self._ends[:, target] = self._ends[:, source]

    def _of_slot(self, slot: int) -> list[StageState]:
        return list(self._states_of((slot, slot + 1)).values())

    def close(self) -> None:
        """As `BatchDecoder.close`; what was compiled for the ranges that came is kept for the next process."""
        for engine in self._engines:
            engine.keep_compiled()
        self._engines, self._states, self._parts, self._stages = (), [], {}, {}
        self._recordings = Recordings(self._device)
        del self._scratch, self._prompt, self._frame, self._offsets

    @property
    def state_bytes(self) -> dict[str, int]:
        """As `BatchDecoder.state_bytes`; without the scratch memory of engines that can't write in place."""
        return {spec.name: state.nbytes for spec, state in zip(self._specs, self._states, strict=False)}
