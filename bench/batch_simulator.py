"""A batch without engines: the same phases, ranges, slots and chunks as `runtime/batch.py`, on a clock that calls move on.

It is held against the real one in tests, call for call; what a call takes is all that it is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from ..contract import StageSpec
from ..errors import ConfigError
from ..runtime.batch import PREFILL_SECONDS
from ..runtime.pace import Pace
from ..runtime.phases import Policy, best_slot, check_policy, modulus_of, phases_of
from ..runtime.ranges import may_overfire, ranges_of


class CallTimes(Protocol):
    """What calls take, in nanoseconds (`StageTimes`)."""

    def call_ns(self, stage: str, slots: int) -> float:
        """A stage for so many sequences."""
        ...

    def chunk_ns(self, tokens: int) -> float:
        """Appending so many tokens of a prompt."""
        ...


@dataclass(eq=False)
class SimulatedSequence:
    """As `Sequence` of a batch, with a number of tokens in the place of ids."""

    number: int
    pending: int
    state: Literal["queued", "prefilling", "waiting", "ready"] = "queued"
    position: int = 0
    slot: int = -1


class SimulatedBatch:
    """Steps that take the time of their calls.

    Args:
        stages: of the model, in dataflow order.
        times: of calls.
        slots: sequences that there is room for at once.
        policy: as of `Batch`.
        prefill_seconds: as of `Batch`.

    Raises:
        ConfigError: less than one slot, or a policy that there is not.
    """

    def __init__(
        self,
        stages: Sequence[StageSpec],
        times: CallTimes,
        slots: int,
        policy: Policy,
        prefill_seconds: float = PREFILL_SECONDS,
    ) -> None:
        check_policy(policy)
        if slots < 1:
            raise ConfigError(f"slots must be at least 1, got {slots}")
        self.slots, self.now = slots, 0.0
        self.largest_call = 0
        """Sequences of the largest call so far."""
        self._stages, self._times, self._pace = stages, times, Pace(prefill_seconds)
        self._phases, self._modulus = phases_of(stages, slots, policy), modulus_of(stages, policy)
        self._passable = {stage.name: np.full(slots, may_overfire(stage)) for stage in stages}
        self._in_slot: list[SimulatedSequence | None] = [None] * slots
        self._queue: list[SimulatedSequence] = []
        self._joined = self._steps = 0

    @property
    def queued(self) -> int:
        """Sequences that wait for a slot."""
        return len(self._queue)

    def join(self, prompt_tokens: int) -> SimulatedSequence:
        """As `Batch.join`; waits for a slot if none is free."""
        sequence = SimulatedSequence(self._joined, prompt_tokens)
        self._joined += 1
        if None in self._in_slot:
            self._take_slot(sequence)
        else:
            self._queue.append(sequence)
        return sequence

    def leave(self, sequence: SimulatedSequence) -> None:
        """As `Batch.leave`, of one that has a slot."""
        self._in_slot[sequence.slot] = None

    def wait(self, until: float) -> None:
        """Nothing is to do before."""
        self.now = max(self.now, until)

    def step(self, ready: Sequence[SimulatedSequence]) -> list[SimulatedSequence]:
        """As `Batch.step`: those given take a token; returns all that have logits then."""
        if ready:
            self._decode(ready)
        self._steps += 1
        self._append_prompts()
        return [*ready, *self._released()]

    def _decode(self, ready: Sequence[SimulatedSequence]) -> None:
        steps, positions = np.zeros(self.slots, np.bool_), np.zeros(self.slots, np.int64)
        for sequence in ready:
            steps[sequence.slot], positions[sequence.slot] = True, sequence.position
            sequence.position += 1
        for stage in self._stages:
            fires = steps & ((positions - stage.delay) % stage.stride == 0)
            for first, last in ranges_of(fires, self._passable[stage.name]):
                self._call(stage, last - first)

    def _call(self, stage: StageSpec, slots: int) -> None:
        self.largest_call = max(self.largest_call, slots)
        self.now += self._times.call_ns(stage.name, slots) * 1e-9

    def _append_prompts(self) -> None:
        while self._queue and None in self._in_slot:
            self._take_slot(self._queue.pop(0))
        began, spent = self.now, 0.0
        for sequence in sorted(self._live("prefilling"), key=lambda one: one.number):
            while sequence.pending:
                is_awaited = bool(self._live("ready", "waiting"))
                chunk = self._pace.chunk(spent) if is_awaited else sequence.pending
                if not chunk:
                    return
                self._append(sequence, min(chunk, sequence.pending))
                spent = self.now - began
            sequence.state = "waiting"

    def _append(self, sequence: SimulatedSequence, tokens: int) -> None:
        if sequence.position == 0:
            for stage in self._stages:
                if stage.fires == "ahead":  # before the first token
                    self._call(stage, 1)
        seconds = self._times.chunk_ns(tokens) * 1e-9
        self.now += seconds
        self._pace.took(tokens, seconds)
        sequence.pending -= tokens
        sequence.position += tokens

    def _released(self) -> list[SimulatedSequence]:
        found = []
        for sequence in self._live("waiting"):
            if (sequence.position - self._steps - self._phases[sequence.slot]) % self._modulus == 0:
                sequence.state = "ready"
                found.append(sequence)
        return found

    def _live(self, *states: str) -> list[SimulatedSequence]:
        return [sequence for sequence in self._in_slot if sequence is not None and sequence.state in states]

    def _take_slot(self, sequence: SimulatedSequence) -> None:
        taken = np.array([one is not None for one in self._in_slot])
        sequence.slot = best_slot(self._stages, self._phases, taken)
        self._in_slot[sequence.slot] = sequence
        sequence.state = "prefilling"
