"""Decoding in a device's memory: all state stays there, at fixed addresses, and a decode step is one launch.

Every engine finds its rows by itself (`export/graphs/resident.py`), so a call is: one copy that brings positions and token ids,
the engines that fire, one copy that takes the logits back. Which engines fire is the only thing that differs between decode
steps: each firing set is recorded once and then launched as a whole. Where an engine can't update a cache in place, its caches
take turns between two buffers, and a recording holds for one turn of each (docs/adr/0007, 0008).

Stages that nobody waits for within a step may run beside the others, on the device's second queue: they begin when those before
them are done, and the step ends when all are.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
import numpy.typing as npt

from ..contract import DRAWS, Limits, StageSpec, late_stages, needs_clocks, period_of, room_of, rows_within, vocab_size_of
from ..errors import CapacityError, ConfigError, DeviceError, EngineMismatchError
from .calls import run_in_calls
from .decoder import Decoder, Observer, Written
from .device import Device, Region, Work, timed
from .engines.resident import Phase, ResidentEngine, ResidentProgram, ResidentStage, TimedStage
from .frame import Frame
from .host import check_same_shapes
from .recordings import Recordings
from .resets import needed_from, to_run_again
from .resident_batch import ResidentBatchDecoder
from .resident_decided import DecidedDecoder
from .resident_sampler import ResidentSampler
from .resident_state import StageState, bindings_of, read_states, write_states
from .rows import Array, Ids, TokenLog
from .sampling import SamplingParams
from .schedules import Schedule
from .state_copies import COPIES_BYTES

_log = logging.getLogger(__name__)
_PHASES: tuple[Phase, ...] = ("decode", "prefill")
_PREFILL = 512
"""Tokens of one call of engines that take any number: each may want logits, for which there is memory on both sides."""


class ResidentEngines:
    """The engines of a bundle on one device, as `DecoderFactory`.

    Args:
        engines: in dataflow order.
        device: that they run on.
        sampler: what draws tokens there, if the bundle has one.
        records: whether decode steps are recorded, where the device can; else every engine is launched by itself.
        overlap: whether stages that a decode step does not wait for run beside the others.
    """

    def __init__(
        self,
        engines: Sequence[ResidentEngine],
        device: Device,
        sampler: ResidentProgram | None = None,
        records: bool = True,
        overlap: bool = False,
    ) -> None:
        self.engines, self.device = tuple(engines), device
        self.specs: Sequence[StageSpec] = [engine.spec for engine in engines]
        self.sampler, self.records = sampler, records and device.has_graphs
        self.overlap = overlap and len(late_stages(self.specs)) > 0
        self.turn = threading.RLock()
        """Sessions share a stream and the engines' working memory, so that in several threads their calls take turns."""

    @property
    def capacity(self) -> int | None:
        """As `DecoderFactory.capacity`."""
        limits = self.engines[0].limits
        return None if limits is None else limits.capacity

    def decoder(self, tokens: TokenLog, batch: int, capacity: int, copies_bytes: int = COPIES_BYTES) -> Decoder:
        """As `DecoderFactory.decoder`."""
        limits = self._limits(batch, capacity)
        with self.turn:
            if needs_clocks(self.specs):
                return DecidedDecoder(self.engines, self.device, tokens, limits, self.turn, copies_bytes)
            return ResidentDecoder(self, tokens, limits)

    def batch_decoder(self, tokens: TokenLog, slots: int, capacity: int) -> ResidentBatchDecoder:
        """Allocate the state of `slots` sequences of at most `capacity` tokens, each at a position of its own.

        Args:
            tokens: their ids.

        Raises:
            ConfigError: more slots than the engines were built for, slots of a size that the device can't give views of, or a
                model whose data decides what fires.
            CapacityError: more tokens than the engines were built for.
            EngineMismatchError: engines that want all sequences at one position.
        """
        if needs_clocks(self.specs):
            raise ConfigError(
                "a batch of sequences that each fire by their own data is not there for devices yet; open a session for each "
                "sequence (model.session), or a batch on the target cpu"
            )
        limits = self._limits(slots, capacity)
        if slots > 1:
            self.require_own_positions()
        with self.turn:
            return ResidentBatchDecoder(self.engines, self.device, tokens, limits, self.records, self.turn)

    def require_own_positions(self) -> None:
        """Raise EngineMismatchError if the sequences of a batch can't each stand at a position of their own."""
        behind = [engine for engine in self.engines if not engine.own_positions]
        if behind:
            raise EngineMismatchError(
                f'the engine of stage "{behind[0].spec.name}" was built by an earlier foveal: it wants all of a batch '
                "at one position, and so serves sessions but not sequences that come and go; build it again: "
                f"foveal build BUNDLE --target {behind[0].target}"
            )

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
        self._turn = engines.turn
        self._specs, self._device, self._limits, self._tokens = engines.specs, engines.device, limits, tokens
        self._vocab_size = vocab_size_of(self._specs)
        self.fires = {spec.name: 0 for spec in self._specs}
        self.copied_bytes = 0
        self._ends = [0] * len(self._specs)  # the firing after the last of each stage
        self._states = [
            StageState.new(engine, self._device, limits, self._specs, 1 if engine.in_place else 2) for engine in engines.engines
        ]
        self._by_name = {spec.name: state for spec, state in zip(self._specs, self._states, strict=True)}
        self._frames = {phase: Frame(self._device, self._specs, phase, limits, self._vocab_size) for phase in _PHASES}
        late = late_stages(self._specs) if engines.overlap else frozenset()
        self._beside = {phase: [phase == "decode" and spec.name in late for spec in self._specs] for phase in _PHASES}
        self._stages = {phase: self._bind(engines.engines, phase) for phase in _PHASES}
        self._bind_fixed()
        self._sampler, self._unkept = self._open_sampler(engines.sampler), engines.sampler
        self._records, self._recordings = engines.records, Recordings(self._device)
        if self._records:
            self._warm_up()
            for engine in engines.engines:
                engine.keep_compiled()

    def _bind(self, engines: Sequence[ResidentEngine], phase: Phase) -> list[ResidentStage]:
        batch = self._limits.batch
        return [engine.bind(phase, batch, beside) for engine, beside in zip(engines, self._beside[phase], strict=True)]

    def _open_sampler(self, program: ResidentProgram | None) -> ResidentSampler | None:
        """The sampler leads one token id to the next step: it serves models that read each token once, by itself."""
        tokens = [given for spec in self._specs for given in spec.inputs if given.source is None]
        if program is None or [(given.count, given.shift) for given in tokens] != [(1, 0)]:
            return None
        sets = {self._fired(position) for position in range(self._period)}
        return ResidentSampler(program, self._device, self._frames["decode"], sorted(sets), self._limits.batch)

    def _fired(self, position: int) -> tuple[bool, ...]:
        """Which stages fire for the token at a position."""
        return tuple(len(spec.firings(position, 1)) > 0 for spec in self._specs)

    @property
    def _period(self) -> int:
        return period_of(self._specs)

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
        needed = needed_from(self._specs[-1], position, tokens, wanted)

        def call(start: int, count: int, here: Ids) -> npt.NDArray[np.float32]:
            return self._call(start, count, here, needed).copy()  # the frame is written over by the next

        with self._turn:
            return run_in_calls(call, position, tokens, wanted, self._room)

    def _room(self, position: int) -> int:
        """Tokens that one call may take from a position on."""
        return min(self._limits.prefill, room_of(self._specs, position))

    def _call(self, position: int, tokens: int, wanted: Ids, needed: int = 0) -> npt.NDArray[np.float32]:
        """One call of the engines; of the stage that gives logits none, if what is `needed` of it comes later."""
        asked = len(wanted)
        wanted = wanted if asked else np.array([tokens - 1])  # engines are built for one row at least
        phase: Phase = "decode" if tokens == 1 else "prefill"
        firings, frame = [spec.firings(position, tokens) for spec in self._specs], self._frames[phase]
        if firings[-1].stop <= needed:
            self._ends[-1], firings[-1] = -1, range(0)
        counts = [len(fired) for fired in firings]
        self._replay(firings)
        frame.tell(firings, self._tokens, wanted)

        def work() -> None:
            frame.upload()
            with self._joined():
                self._run_stages(phase, counts, len(wanted))
                frame.download(len(wanted))

        if phase == "decode":
            self._launch("logits", counts, work)
        else:
            work()
        self._device.synchronize()
        self._count(counts)
        return frame.logits(len(wanted))[:, :asked]

    def _replay(self, firings: Sequence[range]) -> None:
        """Run stages that reset again from their last reset, where they do not go on from where they were."""
        for index, (spec, fired) in enumerate(zip(self._specs, firings, strict=True)):
            for part in to_run_again(spec, fired, self._ends[index], spec.most_firings(self._limits.prefill)):
                self._run_again(index, part)
            if fired:
                self._ends[index] = fired.stop

    def _run_again(self, index: int, fired: range) -> None:
        """Run one stage alone, for what it remembers."""
        only = [fired if place == index else range(0) for place in range(len(self._specs))]
        self._frames["prefill"].tell(only, self._tokens, np.zeros(1, np.int64))
        self._frames["prefill"].upload()
        self._run_stages("prefill", [len(one) for one in only], 1)
        self._device.synchronize()

    @property
    def draws(self) -> bool:
        """As `Decoder.draws`."""
        return self._sampler is not None

    def draw(self, position: int, count: int, params: SamplingParams, uniform: npt.NDArray[np.float64]) -> Ids:
        """As `Decoder.draw`, all on the device."""
        if self._sampler is None:
            raise ConfigError("these engines draw no tokens on the device; draw them on the host from the logits")
        drawn = np.empty((self._limits.batch, count), np.int64)
        with self._turn:
            for start in range(0, count, DRAWS):
                here = slice(start, min(start + DRAWS, count))
                drawn[:, here] = self._draw(self._sampler, position + start, params, uniform[here], drawn[:, start - 1 : start])
            if self._unkept is not None:  # the sampler is compiled when it first draws
                self._unkept.keep_compiled()
                self._unkept = None
        return drawn

    def _draw(
        self, sampler: ResidentSampler, position: int, params: SamplingParams, uniform: npt.NDArray[np.float64], last: Ids
    ) -> Ids:
        """As `draw`, of no more tokens than the sampler is given numbers for; `last` was drawn before, if any was."""
        frame = self._frames["decode"]
        self._replay([spec.firings(position, len(uniform)) for spec in self._specs])
        frame.tell([spec.firings(position, 1) for spec in self._specs], self._tokens, np.zeros(1, np.int64))
        frame.tell_ahead(position, last)
        frame.upload()
        sampler.begin(params, uniform)
        for step in range(len(uniform)):
            self._draw_one(sampler, self._fired(position + step))
            sampler.keep(step)
        self._device.synchronize()
        return sampler.drawn(len(uniform))

    def _draw_one(self, sampler: ResidentSampler, fired: tuple[bool, ...]) -> None:
        counts = [int(flag) for flag in fired]

        def work() -> None:
            with self._joined():
                self._run_stages("decode", counts, 1)
                sampler.queue(fired)
            sampler.go_on()

        self._launch("draw", counts, work)
        self._count(counts)

    def _count(self, counts: Sequence[int]) -> None:
        for spec, state, count in zip(self._specs, self._states, counts, strict=True):
            self.fires[spec.name] += count
            self.copied_bytes += state.rewritten_bytes if count else 0

    @contextmanager
    def _joined(self) -> Iterator[None]:
        """Let what is queued after the block wait for what runs beside it, also where something in it failed."""
        try:
            yield
        except BaseException:
            with suppress(DeviceError):  # what to tell is what failed first
                self._device.join()
            raise
        self._device.join()

    def _run_stages(self, phase: Phase, counts: Sequence[int], wanted: int) -> None:
        """Queue those that fire.

        Those that run beside write while others read the rows they gave in earlier steps: where state takes turns, the buffer
        that had these until now is the newest one until all have found their rows.
        """
        swaps = []
        for index, count in enumerate(counts):
            if not count:
                continue
            if self._beside[phase][index] and self.observer is None:
                with self._device.beside():
                    self._ready(phase, index).run(count, wanted)
                swaps.append(self._states[index])
            else:
                self._run_stage(phase, index, count, wanted)
        for state in swaps:
            state.swap()

    def _run_stage(self, phase: Phase, index: int, firings: int, wanted: int) -> None:
        spec, state, stage = self._specs[index], self._states[index], self._ready(phase, index)
        if self.observer is None:
            stage.run(firings, wanted)
            state.swap()
        else:
            elapsed_ns = timed(self._device, lambda: stage.run(firings, wanted))
            state.swap()  # the observer finds the new rows
            self.observer(spec, firings, elapsed_ns)

    def _ready(self, phase: Phase, index: int) -> ResidentStage:
        """A stage that finds all state where it is now."""
        stage = self._stages[phase][index]
        for tensor, buffer in bindings_of(self._specs[index], self._by_name):
            stage.bind(tensor, buffer)
        return stage

    def _launch(self, kind: str, counts: Sequence[int], work: Work) -> None:
        """Do a decode step as it was recorded; the first of its kind is done as it is, and recorded.

        None is recorded, and none done as recorded, while someone observes: a recording has no stages to wait for.
        """
        if not self._records or self.observer is not None:
            work()
            return
        turns = self._turns
        key = (kind, tuple(count > 0 for count in counts), turns)
        if self._recordings.launch(key):
            for state, count in zip(self._states, counts, strict=True):
                if count:
                    state.swap()
            return

        def ran() -> Iterator[ResidentStage]:
            return (stage for stage, count in zip(self._stages["decode"], counts, strict=True) if count)

        def again() -> None:
            self._turns = turns

        self._recordings.record(key, work, ran, again)

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
        period = self._period * max(state.sides for state in self._states)
        for position in range(min(period, self._limits.capacity)):
            self._call(position, 1, np.zeros(1, np.int64))
        self._ends = [-1] * len(self._specs)
        _log.info("%d decode steps are recorded as CUDA graphs", self.recorded)
        self.fires, self.copied_bytes = dict.fromkeys(self.fires, 0), 0

    @property
    def recorded(self) -> int:
        """Decode steps that are launched as a whole: one for each firing set, and turn of caches that take turns."""
        return len(self._recordings)

    def profile(self) -> dict[str, dict[str, float]]:
        """Have every layer of decode steps timed from now on: by stage and layer, milliseconds that grow with the steps.

        Raises:
            ConfigError: decode steps are recorded, or the library times no layers.
        """
        stages = self._stages["decode"]
        if self._records or not all(isinstance(stage, TimedStage) for stage in stages):
            raise ConfigError("layers are timed in TensorRT engines whose steps are not recorded; open them with graphs=False")
        timed = zip(self._specs, stages, strict=True)
        return {spec.name: stage.profile() for spec, stage in timed if isinstance(stage, TimedStage)}

    def rows(self, stage: int, position: int) -> Array | None:
        """As `Decoder.rows`; a copy."""
        with self._turn:
            return self._states[stage].read_rows(rows_within(self._specs, position)[stage])

    def write_rows(self, stage: int, rows: Array) -> None:
        """As `Decoder.write_rows`."""
        with self._turn:
            self._states[stage].write_rows(rows)

    def read(self, position: int) -> Written:
        """As `Decoder.read`."""
        with self._turn:
            return read_states(self._specs, self._states, position)

    def schedule(self, position: int) -> Schedule:
        """As `Decoder.schedule`."""
        return {}

    def follow(self, schedule: Schedule | None) -> None:
        """As `Decoder.follow`: there is none."""

    def write(self, written: Written, position: int) -> None:
        """As `Decoder.write`."""
        check_same_shapes(written, self.read(0))
        with self._turn:
            write_states(self._states, written)
        self._ends = [-1] * len(self._specs)

    def close(self) -> None:
        """As `Decoder.close`."""
        self._states, self._by_name, self._stages, self._frames = [], {}, {}, {}
        self._recordings = Recordings(self._device)
        self._sampler = None
        del self._offsets

    @property
    def state_bytes(self) -> dict[str, int]:
        """As `Decoder.state_bytes`."""
        return {name: state.nbytes for name, state in self._by_name.items()}
