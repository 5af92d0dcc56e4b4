"""Run a batch at full occupancy, and keep every sample: what a step takes, and which stages fire in it for how many slots."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import get_args

import numpy as np
import numpy.typing as npt

from ..contract import StageSpec
from ..errors import CapacityError, ConfigError
from ..hierarchy import Hierarchy
from ..runtime.batches.batch import Batch
from ..runtime.batches.phases import Policy, check_policy, modulus_of
from ..runtime.batches.sequence import Sequence as Joined
from ..runtime.model import Model
from ..runtime.rows import Ids
from .decode import Load, idle_engines

ALL_POLICIES: tuple[Policy, ...] = get_args(Policy)
UNHURRIED_S = 3600.0
"""For prompts, between two steps: they are appended at once, before anything is measured."""
_IDLE_ROUNDS = 5

Logits = Mapping[Joined, npt.NDArray[np.float32]]


def checked_policies(policies: Sequence[str]) -> tuple[Policy, ...]:
    """Policies by their names.

    Raises:
        ConfigError: none, one that there is not, or one twice.
    """
    if not policies:
        raise ConfigError(f"got no policy, expected some of: {', '.join(ALL_POLICIES)}")
    for policy in policies:
        check_policy(policy)
    if len(set(policies)) < len(policies):
        raise ConfigError(f"got policies {', '.join(policies)}: name each once")
    return tuple(policy for name in policies for policy in ALL_POLICIES if policy == name)


@dataclass(frozen=True)
class BatchLoad:
    """How many sequences decode together, by which policies.

    Raises:
        ConfigError: fewer than two sequences, or policies as `checked_policies` has them.
    """

    slots: int
    policies: tuple[Policy, ...] = ALL_POLICIES

    def __post_init__(self) -> None:
        if self.slots < 2:
            raise ConfigError(f"a batch is of at least 2 sequences, got {self.slots}")
        checked_policies(self.policies)

    def require_room(self, model: Model, work: Load) -> None:
        """Raise a CapacityError if a model's context is too short for the steps in which not all sequences decode yet."""
        context = model.manifest.model.context
        for policy in self.policies:
            if context < (needed := tokens_of_round(model, work, policy)):
                raise CapacityError(
                    f"{model.bundle.path} has a context of {context} tokens; a {policy} batch takes up to {needed}: "
                    f"{work.prompt_tokens} of the prompt, {work.new_tokens} new ones, and those of the steps until all "
                    "sequences are in phase; lower the prompt or the new tokens"
                )


def tokens_until_in_phase(hierarchies: Sequence[str]) -> int:
    """The most that a sequence of any of these models takes while others wait for their phase."""
    return math.lcm(*(level.stride for hierarchy in hierarchies for level in Hierarchy.parse(hierarchy).levels))


def tokens_of_round(model: Model, work: Load, policy: Policy) -> int:
    """The most that a sequence has at the end of a round: staggered, some decode while others wait for their phase."""
    return work.prompt_tokens + work.new_tokens + until_in_phase(model.specs, policy)


def until_in_phase(specs: Sequence[StageSpec], policy: Policy) -> int:
    """The most tokens that a sequence takes while others wait for their phase."""
    return modulus_of(specs, policy) if policy == "staggered" else 0


@dataclass
class BatchSamples:
    """Of one batch, in order: nanoseconds of each step, and by stage the slots that it fired for.

    `positions` are those of the slots at a round's first step, the same in all rounds; `slots`, of each step of a round, those
    that each stage fired for. `calls`, of rounds that were watched: of
    each step the stage, number of slots and nanoseconds of every engine call.
    """

    itl_ns: list[int] = field(default_factory=list)
    fires: list[dict[str, int]] = field(default_factory=list)
    round_tokens_per_s: list[float] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    slots: list[dict[str, list[int]]] = field(default_factory=list)
    copied_bytes_per_step: float = 0.0
    calls: list[list[tuple[str, int, int]]] = field(default_factory=list)


class BatchRounds:
    """Rounds of one batch that all do the same: all slots take a prompt, and decode greedily, or a text, from the first step in
    which all of them do.

    Args:
        batch: whose slots.
        work: of each sequence.
        shorter: by how many tokens the prompt of each is shorter, so that they stand at different places.
    """

    def __init__(self, batch: Batch, work: Load, shorter: Sequence[int] = ()) -> None:
        self.batch, self.samples = batch, BatchSamples()
        self._shorter = shorter or [0] * batch.slots
        self._work, self._steps = work, 0
        self._ids = work.sequences(batch.slots, batch.model.vocab_size, until_in_phase(batch.specs, batch.policy))
        self._texts: dict[Joined, Ids] = {}

    def run(self, is_warm_up: bool = False, watched: bool = False) -> None:
        """One round; appends to `samples` unless it is a warm-up. Watching engine calls takes a little time itself."""
        batch, tokens = self.batch, self._begin()
        positions = [sequence.position for sequence in batch.sequences]
        copied, fired = batch.copied_bytes, dict(batch.fires)
        steps, fires, slots, seen = [], [], [], _Calls()
        batch.observer = seen if watched else None
        for _ in range(self._work.new_tokens):
            began = time.perf_counter_ns()
            tokens = self._chosen(self._step(tokens))
            steps.append(time.perf_counter_ns() - began)
            before, fired = fired, dict(batch.fires)
            fires.append({name: count - before[name] for name, count in fired.items()})
            slots.append(self._slots_fired())
            seen.end_step()
        batch.observer = None
        if not is_warm_up:
            kept = self.samples
            kept.itl_ns += steps
            kept.fires += fires
            kept.calls += seen.by_step if watched else []
            kept.round_tokens_per_s.append(batch.slots * len(steps) / (sum(steps) * 1e-9))
            kept.positions, kept.slots = positions, slots
            kept.copied_bytes_per_step = (batch.copied_bytes - copied) / len(steps)
        for sequence in batch.sequences:
            batch.leave(sequence)

    def _slots_fired(self) -> dict[str, list[int]]:
        """By the newest token of each slot."""
        found: dict[str, list[int]] = {}
        for sequence in self.batch.sequences:
            for name in self.batch.fired(sequence):
                found.setdefault(name, []).append(sequence.slot)
        return found

    def _begin(self) -> dict[Joined, int]:
        """Have all slots decode; rounds begin in the same phase, so that step for step they fire the same."""
        while self._steps % modulus_of(self.batch.specs, self.batch.policy):
            self._step({})
        prompt = self._work.prompt_tokens
        each = zip(self._ids, self._shorter, strict=True)
        self._texts = {self.batch.join(ids[: prompt - shorter]): ids for ids, shorter in each}
        found = self._step({})
        while len(found) < self.batch.slots:
            found = self._step(self._chosen(found))
        return self._chosen(found)

    def _chosen(self, found: Logits) -> dict[Joined, int]:
        """The next token of each: as the text has it, or the likeliest."""
        if self._work.text is None:
            return greedy(found)
        following = ((sequence, self._texts[sequence]) for sequence in found)
        return {one: int(ids[min(one.position, len(ids) - 1)]) for one, ids in following}

    def _step(self, tokens: Mapping[Joined, int]) -> Logits:
        self._steps += 1
        return self.batch.step(tokens)


class _Calls:
    """Engine calls by step."""

    def __init__(self) -> None:
        self.by_step: list[list[tuple[str, int, int]]] = []
        self._of_step: list[tuple[str, int, int]] = []

    def __call__(self, stage: StageSpec, slots: int, elapsed_ns: int) -> None:
        """One was made."""
        self._of_step.append((stage.name, slots, elapsed_ns))

    def end_step(self) -> None:
        """The calls that follow are of the next."""
        self.by_step.append(self._of_step)
        self._of_step = []


def greedy(found: Logits) -> dict[Joined, int]:
    """The likeliest token of each."""
    return {sequence: int(logits.argmax()) for sequence, logits in found.items()}


def open_rounds(model: Model, work: Load, slots: int, policy: Policy) -> BatchRounds:
    """A batch of a model, with room for a round.

    Raises:
        CapacityError, ConfigError, EngineMismatchError: as `Batch`.
    """
    return BatchRounds(model.batch(slots, tokens_of_round(model, work, policy), policy, UNHURRIED_S), work)


def batch_host_ns_per_step(model: Model, work: Load, slots: int, policy: Policy) -> float:
    """As `host_ns_per_step`, of a batch: the mean of the quietest of some rounds with idle engines.

    Where the data decides, idle engines would decide nothing: what is left of steps beside their engine calls.
    """
    if any(spec.clock is not None for spec in model.specs):
        return _around_calls_ns(model, work, slots, policy)
    capacity = tokens_of_round(model, work, policy)
    with Batch(idle_engines(model), model.manifest.model, slots, capacity, policy, UNHURRIED_S) as batch:
        rounds = BatchRounds(batch, work)
        for _ in range(_IDLE_ROUNDS):
            rounds.run()
    return slots * 1e9 / max(rounds.samples.round_tokens_per_s)


def _around_calls_ns(model: Model, work: Load, slots: int, policy: Policy) -> float:
    with model.batch(slots, tokens_of_round(model, work, policy), policy, UNHURRIED_S) as batch:
        rounds = BatchRounds(batch, work)
        rounds.run(watched=True)
    kept = rounds.samples
    return median(step - sum(ns for _, _, ns in calls) for step, calls in zip(kept.itl_ns, kept.calls, strict=True))
