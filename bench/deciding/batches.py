"""Batches whose sequences fire where their own texts say, against fixed strides: the figures of docs/batches.md.

python -m foveal.bench.deciding.batches DECIDED.bundle FIXED.bundle --text TEXT.txt
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Literal

import msgspec
from rich.console import Console
from rich.table import Table

from ...contract import StageSpec
from ...runtime.model import Model, load
from ..batch_rounds import UNHURRIED_S, BatchRounds, BatchSamples, tokens_of_round
from ..decode import Load
from ..environment import Environment, read_environment
from ..script import run_script
from ..statistics import NS_PER_MS, Summary, summarise
from ..text import read_text
from .output import add_options, command_of, give

BATCHES_SCHEMA_VERSION = 1
Phases = Literal["text", "aligned", "staggered"]
"""Where sequences fire: as each one's text says; or, at a fixed stride, all in one step, or as evenly as can be."""


class StageCalls(msgspec.Struct, frozen=True, kw_only=True):
    """A stage, per step of the batch.

    Attributes:
        due: sequences that fire it.
        calls: of its engine: runs of slots that hold all that fire.
        slots: that these calls are for; those above `due` are run along.
        ms: of the calls.
        steps_by_due: in how many steps so many sequences fire it, from 0 on.
    """

    name: str
    due: float
    calls: float
    slots: float
    ms: float
    steps_by_due: list[int]


class BatchCase(msgspec.Struct, frozen=True, kw_only=True):
    """One bundle and one way to fire.

    Attributes:
        itl_ms: of every step its median over rounds, which do the same step for step.
        tokens_per_s: of all sequences.
    """

    bundle: str
    hierarchy: str
    phases: Phases
    itl_ms: Summary
    tokens_per_s: float
    tokens_per_s_by_round: list[float]
    stages: list[StageCalls]
    step_ms: list[float]


class BatchesResult(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run."""

    schema_version: int
    command: str
    environment: Environment
    threads: int
    slots: int
    prompt_tokens: int
    new_tokens: int
    rounds: int
    cases: list[BatchCase]


@dataclass
class _Case:
    """A batch in the rounds."""

    model: Model
    phases: Phases
    rounds: BatchRounds


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--text", type=Path, required=True, help="UTF-8, all over which the sequences begin")
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=256)
    add_options(parser, rounds=4)
    given = parser.parse_args()
    work, text = Load(given.prompt_tokens, given.new_tokens, given.rounds), read_text(given.text)
    models = [load(path, threads=given.threads) for path in given.bundles]
    command = command_of("batches")
    result = measure([(model, work.reading(model, text)) for model in models], given.slots, command)
    give(result, given, show, 140)


def measure(models: Sequence[tuple[Model, Load]], slots: int, command: str = "") -> BatchesResult:
    """Rounds of all cases take turns, and one more warms up; then one of each with every engine call timed.

    Args:
        models: each with the text that it decodes.
        slots: sequences of a batch.
        command: what the user typed, for the record.

    Raises:
        CapacityError: no room, in a context or in memory.
    """
    environment = read_environment()
    cases = [_opened(model, work, slots, phases) for model, work in models for phases in phases_of(model.specs)]
    (_, work) = models[0]
    for number in range(work.rounds + 1):
        for case in cases:
            case.rounds.run(is_warm_up=number == 0)
    found = []
    for case in cases:
        timed = len(case.rounds.samples.itl_ns)
        case.rounds.run(watched=True)
        found.append(_case(case, timed, work))
    return BatchesResult(
        schema_version=BATCHES_SCHEMA_VERSION,
        command=command,
        environment=environment,
        threads=models[0][0].threads,
        slots=slots,
        prompt_tokens=work.prompt_tokens,
        new_tokens=work.new_tokens,
        rounds=work.rounds,
        cases=found,
    )


def phases_of(specs: Sequence[StageSpec]) -> tuple[Phases, ...]:
    """The ways in which sequences of a model can fire."""
    decided = any(spec.clock is not None and regular_length(spec) is None for spec in specs)
    return ("text",) if decided else ("aligned", "staggered")


def regular_length(spec: StageSpec) -> int | None:
    """Tokens of all spans of a stage: a fixed stride, or a rule of the ids whose spans are all as long; None: others."""
    if spec.clock is None:
        return spec.stride
    return spec.clock.most if spec.clock.stage is None and spec.clock.most == spec.clock.least else None


def _opened(model: Model, work: Load, slots: int, phases: Phases) -> _Case:
    policy = "aligned" if phases == "text" else phases
    batch = model.batch(slots, tokens_of_round(model, work, policy), policy, UNHURRIED_S)
    return _Case(model, phases, BatchRounds(batch, work, _shorter(model.specs, slots, phases)))


def _shorter(specs: Sequence[StageSpec], slots: int, phases: Phases) -> list[int]:
    """By how many tokens prompts are shorter, so that sequences of a rule of ids are staggered, those of a phase side
    by side; those of fixed strides are by the batch itself.
    """
    lengths = [regular_length(spec) or 1 for spec in specs if spec.clock is not None]
    longest = max(lengths, default=1) if phases == "staggered" else 1
    return [slot * longest // slots for slot in range(slots)]


def _case(case: _Case, timed: int, work: Load) -> BatchCase:
    kept, steps = case.rounds.samples, work.new_tokens
    times = [ns / NS_PER_MS for ns in kept.itl_ns[:timed]]
    step_ms = [median(times[step::steps]) for step in range(steps)]
    rates = kept.round_tokens_per_s[: timed // steps]
    return BatchCase(
        bundle=case.model.bundle.name,
        hierarchy=case.model.manifest.model.hierarchy,
        phases=case.phases,
        itl_ms=summarise(step_ms, "ms"),
        tokens_per_s=median(rates),
        tokens_per_s_by_round=rates,
        stages=[calls_of(spec.name, kept, steps) for spec in case.model.specs],
        step_ms=step_ms,
    )


def calls_of(name: str, kept: BatchSamples, steps: int) -> StageCalls:
    """Of a stage, in the last round, which was watched."""
    due = [fires.get(name, 0) for fires in kept.fires[-steps:]]
    calls = [[(slots, ns) for stage, slots, ns in of_step if stage == name] for of_step in kept.calls[-steps:]]
    return StageCalls(
        name=name,
        due=fmean(due),
        calls=fmean(len(of_step) for of_step in calls),
        slots=fmean(sum(slots for slots, _ in of_step) for of_step in calls),
        ms=fmean(sum(ns for _, ns in of_step) for of_step in calls) / NS_PER_MS,
        steps_by_due=[due.count(count) for count in range(max(due) + 1)],
    )


def show(result: BatchesResult, console: Console) -> None:
    """Print a line for each case, and for each of its stages; of coarse ones, in how many steps 0, 1, 2, ... sequences fire."""
    environment = result.environment
    load_1min = "" if environment.load_1min is None else f", load {environment.load_1min:.1f}"
    console.print(
        f"{result.slots} sequences, {result.prompt_tokens} prompt + {result.new_tokens} tokens of text, "
        f"{result.rounds} rounds; {environment.cpu}, threads: {result.threads}, {environment.created_utc}{load_1min}",
        markup=False,
    )
    table = Table("", "p50, ms", "p90", "p95", "p95 / p50", "most", "tokens/s", "in rounds", box=None)
    stages = Table("", "stage", "due a step", "calls", "slots run", "ms", "steps by due", box=None)
    for case in result.cases:
        name, itl = f"{case.bundle}, {case.phases}", case.itl_ms
        ratio = "-" if itl.p50 is None or itl.p95 is None else f"{itl.p95 / itl.p50:.2f}"
        cells = ("-" if ms is None else f"{ms:.2f}" for ms in (itl.p50, itl.p90, itl.p95))
        rounds = f"{min(case.tokens_per_s_by_round):,.0f} to {max(case.tokens_per_s_by_round):,.0f}"
        most = "-" if itl.max is None else f"{itl.max:.2f}"
        table.add_row(name, *cells, ratio, most, f"{case.tokens_per_s:,.0f}", rounds)
        for stage in case.stages:
            figures = (f"{figure:.2f}" for figure in (stage.due, stage.calls, stage.slots, stage.ms))
            by_due = " ".join(map(str, stage.steps_by_due)) if stage.due < result.slots else "all of all"
            stages.add_row(name, stage.name, *figures, by_due)
    console.print(table)
    console.print(stages)


if __name__ == "__main__":
    run_script(main)
