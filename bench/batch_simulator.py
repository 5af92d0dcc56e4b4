"""A batch without engines: admission, phases, ranges and chunks of `runtime/batches/batch.py`, on a clock that calls move on.

It is held against the real one in tests, token for token; what a call takes is all that it is told. Where the data decides who
fires, that is drawn by chance, as often as is expected: which sequences fire in a step is then right on average alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from typing import Protocol

import numpy as np

from ..contract import BEGINNING, StageSpec
from ..errors import ConfigError
from ..runtime.batches.admission import Admission
from ..runtime.batches.batch import PREFILL_SECONDS
from ..runtime.batches.pace import Pace
from ..runtime.batches.phases import Policy, check_policy
from ..runtime.batches.ranges import may_overfire, ranges_of
from ..runtime.batches.sequence import Sequence
from ..runtime.rows import Ids
from .chance import Bits, ChanceFirings


class CallTimes(Protocol):
    """What calls take, in nanoseconds (`StageTimes`)."""

    def call_ns(self, stage: str, slots: int) -> float:
        """A stage for so many sequences."""
        ...

    def chunk_ns(self, stage: str, firings: int) -> float:
        """A stage for so many firings of one sequence."""
        ...


class SimulatedBatch:
    """Steps that take the time of their calls.

    Args:
        stages: of the model, in dataflow order.
        times: of calls.
        slots: sequences that there is room for at once.
        policy: as of `Batch`.
        prefill_seconds: as of `Batch`.
        seed: of what the data decides.

    Raises:
        ConfigError: less than one slot, or a policy that there is not.
    """

    def __init__(
        self,
        stages: SequenceOf[StageSpec],
        times: CallTimes,
        slots: int,
        policy: Policy,
        prefill_seconds: float = PREFILL_SECONDS,
        seed: int = 0,
    ) -> None:
        check_policy(policy)
        if slots < 1:
            raise ConfigError(f"slots must be at least 1, got {slots}")
        self.slots, self.now = slots, 0.0
        self.largest_call = 0
        """Sequences of the largest call so far."""
        self._stages, self._times = stages, times
        self._admission, self._pace = Admission(stages, slots, policy), Pace(prefill_seconds)
        self._chance = ChanceFirings(stages, seed)
        self._passable = {stage.name: np.full(slots, may_overfire(stage)) for stage in stages}

    @property
    def queued(self) -> int:
        """Sequences that wait for a slot."""
        return len(self._those("queued"))

    def join(self, prompt_tokens: int) -> Sequence:
        """As `Batch.join`, with a number of tokens in the place of ids; waits for a slot if none is free."""
        return self._admission.admit(Sequence(np.zeros(prompt_tokens, np.int64)), queue=True)

    def leave(self, sequence: Sequence) -> None:
        """As `Batch.leave`."""
        self._admission.release(sequence)

    def wait(self, until: float) -> None:
        """Nothing is to do before."""
        self.now = max(self.now, until)

    def step(self, ready: SequenceOf[Sequence]) -> list[Sequence]:
        """As `Batch.step`: those given take a token; returns all that have logits then."""
        if ready:
            self._decode(ready)
        self._admission.steps += 1
        self._append_prompts()
        return [*ready, *self._released()]

    def _decode(self, ready: SequenceOf[Sequence]) -> None:
        steps, positions = np.zeros(self.slots, np.bool_), np.zeros(self.slots, np.int64)
        for sequence in ready:
            steps[sequence.slot], positions[sequence.slot] = True, sequence.position
            sequence.go_on(1)
        self._chance.begin()
        fired: dict[str, Bits] = {}
        for stage in self._stages:
            fires = fired[stage.name] = self._fires(stage, steps, positions, fired)
            for first, last in ranges_of(fires, self._passable[stage.name]):
                self._call(stage, last - first)

    def _fires(self, stage: StageSpec, steps: Bits, positions: Ids, fired: Mapping[str, Bits]) -> Bits:
        """By slot, whether its next token fires a stage; `fired`: those before it."""
        if stage.clock is not None:
            return self._chance.of_slots(stage.clock, steps if stage.clock.stage is None else fired[stage.clock.stage])
        found: Bits = steps & ((positions - stage.delay) % stage.stride == 0)
        return found

    def _call(self, stage: StageSpec, slots: int) -> None:
        self.largest_call = max(self.largest_call, slots)
        self.now += self._times.call_ns(stage.name, slots) * 1e-9

    def _append_prompts(self) -> None:
        self._admission.admit_queued()
        began, spent = self.now, 0.0
        for sequence in sorted(self._those("prefilling"), key=lambda one: one.number):
            while len(sequence.pending):
                is_awaited = bool(self._those("ready", "waiting"))
                chunk = self._pace.chunk(spent) if is_awaited else len(sequence.pending)
                if not chunk:
                    return
                self._append(sequence, min(chunk, len(sequence.pending)))
                spent = self.now - began
            sequence.state = "waiting"

    def _append(self, sequence: Sequence, tokens: int) -> None:
        began = self.now
        if sequence.position == 0:
            self._fire(BEGINNING, 1)  # what fires ahead of the first token
        self._fire(sequence.position, tokens)
        self._pace.took(tokens, self.now - began)
        sequence.pending = sequence.pending[tokens:]
        sequence.go_on(tokens)

    def _fire(self, position: int, tokens: int) -> None:
        """Of one sequence, as its own session would."""
        self._chance.begin()
        fired: dict[str, int] = {}
        for stage in self._stages:
            firings = fired[stage.name] = self._firings(stage, position, tokens, fired)
            if firings:
                self.now += self._times.chunk_ns(stage.name, firings) * 1e-9

    def _firings(self, stage: StageSpec, position: int, tokens: int, fired: Mapping[str, int]) -> int:
        if stage.clock is None:
            return len(stage.firings(position, tokens))
        if position == BEGINNING:
            return int(stage.begins_ahead)
        return self._chance.of_rows(stage.clock, tokens if stage.clock.stage is None else fired[stage.clock.stage])

    def _released(self) -> list[Sequence]:
        found = [sequence for sequence in self._those("waiting") if self._admission.is_in_phase(sequence)]
        for sequence in found:
            sequence.state = "ready"
        return found

    def _those(self, *states: str) -> list[Sequence]:
        return [sequence for sequence in self._admission.sequences if sequence.state in states]
