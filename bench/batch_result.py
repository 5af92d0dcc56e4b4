"""What a benchmark says of a batch: beside one sequence of the same model, and split by what fires in a step."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec

from ..contract import StageSpec
from ..forecast.firings import is_coarse
from ..runtime.batches.phases import Policy
from .batch_rounds import BatchSamples
from .statistics import NS_PER_MS, Summary, summarise


class FiringSetResult(msgspec.Struct, frozen=True, kw_only=True):
    """Steps in which each stage fires for the same number of slots; stages that fire for none are left out."""

    fires: dict[str, int]
    steps: int
    itl_ms: Summary


class BatchStepSamples(msgspec.Struct, frozen=True, kw_only=True):
    """Raw nanoseconds of each step, in order, and which of the firing sets it is of.

    `positions`: where each slot stands at a round's first step; every round begins alike. `slots`: of each step of a round,
    those that each coarse stage fires for.
    """

    itl_ns: list[int]
    firing_set: list[int]
    positions: list[int]
    slots: list[dict[str, list[int]]] = []


class BatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """A model's figures with `slots` sequences that decode together. Tokens per second are of all of them.

    `itl_of_rounds_ms`: of each step of a round its median over rounds, which do the same step for step: what the schedule does,
    without what else the machine did. `times_one`: the rate in those of one sequence alone; `share_of_prefill`: of the rate at
    which one sequence's prompt is read, in the same run.
    """

    policy: Policy
    slots: int
    itl_ms: Summary
    itl_fire_ms: Summary
    itl_nofire_ms: Summary
    itl_of_rounds_ms: Summary
    firing_sets: list[FiringSetResult]
    tokens_per_s: float
    tokens_per_s_by_round: list[float]
    times_one: float
    share_of_prefill: float
    copied_bytes_per_step: float
    host_us_per_step: float | None
    state_reserved_bytes: int
    samples: BatchStepSamples


def name_of(batch: BatchResult) -> str:
    """For tables, beside the model's."""
    return f"{batch.slots} {batch.policy}"


def batch_result(
    policy: Policy,
    slots: int,
    kept: BatchSamples,
    stages: Sequence[StageSpec],
    one: tuple[float, float],
    host_us: float | None,
    state_bytes: int,
) -> BatchResult:
    """Summarise a batch's samples.

    Args:
        policy: the batch's.
        slots: sequences that decode in every step.
        kept: what was measured.
        stages: of the model.
        one: tokens per second of one sequence that decodes, and of one that is read.
        host_us: microseconds of the host's side of a step.
        state_bytes: reserved for all slots.
    """
    coarse_names = {stage.name for stage in stages if is_coarse(stage)}
    fired = [{name: count for name, count in step.items() if count} for step in kept.fires]
    sets: list[dict[str, int]] = []
    for fires in fired:
        if fires not in sets:
            sets.append(fires)
    which = [sets.index(fires) for fires in fired]
    itl_ms = [ns / NS_PER_MS for ns in kept.itl_ns]
    coarse = [any(name in coarse_names for name in fires) for fires in fired]
    rounds, rate = len(kept.round_tokens_per_s), median(kept.round_tokens_per_s)
    steps = len(itl_ms) // rounds
    return BatchResult(
        policy=policy,
        slots=slots,
        itl_ms=summarise(itl_ms, "ms"),
        itl_fire_ms=summarise([ms for ms, fires in zip(itl_ms, coarse, strict=True) if fires], "ms"),
        itl_nofire_ms=summarise([ms for ms, fires in zip(itl_ms, coarse, strict=True) if not fires], "ms"),
        itl_of_rounds_ms=summarise([median(itl_ms[step::steps]) for step in range(steps)], "ms"),
        firing_sets=[_firing_set(number, fires, which, itl_ms) for number, fires in enumerate(sets)],
        tokens_per_s=rate,
        tokens_per_s_by_round=kept.round_tokens_per_s,
        times_one=rate / one[0],
        share_of_prefill=rate / one[1],
        copied_bytes_per_step=kept.copied_bytes_per_step,
        host_us_per_step=host_us,
        state_reserved_bytes=state_bytes,
        samples=BatchStepSamples(
            itl_ns=kept.itl_ns,
            firing_set=which,
            positions=kept.positions,
            slots=[{name: slots for name, slots in step.items() if name in coarse_names} for step in kept.slots],
        ),
    )


def _firing_set(number: int, fires: dict[str, int], which: Sequence[int], itl_ms: Sequence[float]) -> FiringSetResult:
    of_it = [ms for ms, set_ in zip(itl_ms, which, strict=True) if set_ == number]
    return FiringSetResult(fires=fires, steps=len(of_it), itl_ms=summarise(of_it, "ms"))
