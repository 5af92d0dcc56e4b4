"""What a few tokens cost against one, as a chunk of one sequence and as a batch: the figures of docs/performance.md.

python -m foveal.bench.small_batches BUNDLE...
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, median
from time import perf_counter_ns, thread_time_ns

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from ..contract import StageSpec, period_of
from ..errors import CapacityError, ConfigError
from ..forecast.firings import firings_of
from ..runtime.expected import expected_period, expected_schedule
from ..runtime.model import Model, load
from ..runtime.session import Session
from .script import run_script
from .statistics import NS_PER_MS

CHUNKS, BATCHES = (1, 2, 4, 8, 16), (1, 2, 4, 8, 16, 64)
PAST = 512


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Of one step of so many tokens, in milliseconds: of one that fires every stage, and on average.

    `times_one` and `mean_times_one` are against one token of one sequence, likewise.
    """

    tokens: int
    ms: float
    mean_ms: float
    times_one: float
    mean_times_one: float


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """One bundle's. Prefill is of as many tokens as the past has; `of_prefill` is what share of its rate each batch reaches."""

    bundle: str
    chunks: list[Cost]
    batches: list[Cost]
    prefill_tokens_per_s: float
    of_prefill: dict[int, float]


Clock = Callable[[], int]
Times = list[float]
"""Milliseconds of steps that follow each other, the first at a position where every stage fires."""


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processor-time", action="store_true", help="not the clock's: for a busy machine, on one thread")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.processor_time and given.threads != 1:
        raise ConfigError(f"--processor-time is that of one thread, got --threads {given.threads}; give --threads 1")
    clock = thread_time_ns if given.processor_time else perf_counter_ns
    costs = measure([load(path, threads=given.threads) for path in given.bundles], given.rounds, clock)
    if given.json:
        sys.stdout.write(msgspec.json.encode(costs).decode() + "\n")
    else:
        show(costs)


def measure(models: Sequence[Model], rounds: int, clock: Clock = perf_counter_ns, past: int = PAST) -> list[Costs]:
    """Medians over rounds in which all models, chunks and batches take turns; one more warms up.

    Raises:
        CapacityError: a model whose context does not hold the past and the steps behind it.
    """
    cases = [_cases(model, past, clock) for model in models]
    samples: list[dict[str, list[Times]]] = [{name: [] for name in of_model} for of_model in cases]
    for number in range(rounds + 1):
        for of_model, kept in zip(cases, samples, strict=True):
            for name, case in of_model.items():
                times = case()
                if number:
                    kept[name].append(times)
    medians = [
        {name: [median(step) for step in zip(*rounds, strict=True)] for name, rounds in kept.items()} for kept in samples
    ]
    return [_costs(model, past, times) for model, times in zip(models, medians, strict=True)]


def _cases(model: Model, past: int, clock: Clock) -> dict[str, Callable[[], Times]]:
    """Everything that is timed, by name."""
    span = _span(model.specs)
    context = model.manifest.model.context
    if past % period_of(model.specs) or past + span > context:
        raise CapacityError(
            f"{model.bundle.path} has a context of {context} tokens, got {span} behind {past}; take a model of a longer context"
        )
    alone = _behind(model, 1, past, span)
    prompt = Session(model.engines, model.manifest.model, 1, past)
    cases: dict[str, Callable[[], Times]] = {"prefill": partial(_prefill, prompt, past, clock)}
    cases |= {f"chunk of {tokens}": partial(_steps, alone, tokens, span, clock) for tokens in CHUNKS}
    together = {batch: _behind(model, batch, past, span) for batch in BATCHES}
    return cases | {f"batch of {batch}": partial(_steps, together[batch], 1, span, clock) for batch in BATCHES}


def _span(specs: Sequence[StageSpec]) -> int:
    """Tokens that come to whole periods of firing, as far as they are whole numbers, and to whole chunks."""
    whole = math.lcm(period_of(specs), *CHUNKS)
    return -(-expected_period(specs, 1) // whole) * whole


def _behind(model: Model, batch: int, past: int, span: int) -> Session:
    """A batch that has seen the past and the span behind it; where the data decides, stages fire as often as is expected."""
    session = Session(model.engines, model.manifest.model, batch, past + span)
    session.follow(expected_schedule(session.specs, past + span))
    session.advance(np.zeros((batch, past + span), np.int64), last_only=True)
    return session


def _prefill(session: Session, tokens: int, clock: Clock) -> Times:
    session.reset()
    return [_ms(session, np.zeros((1, tokens), np.int64), clock, last_only=True)]


def _steps(session: Session, tokens: int, span: int, clock: Clock) -> Times:
    """Of the span's steps, run twice: the first time brings the weights back, which other models have displaced."""
    ids = np.zeros((session.batch, tokens), np.int64)
    for _ in range(2):
        session.rewind(span)
        times = [_ms(session, ids, clock) for _ in range(span // tokens)]
    return times


def _ms(session: Session, ids: np.ndarray, clock: Clock, last_only: bool = False) -> float:
    began = clock()
    session.advance(ids, last_only=last_only)
    return (clock() - began) / NS_PER_MS


def _costs(model: Model, past: int, times: dict[str, Times]) -> Costs:
    one = times["chunk of 1"]
    firing_one = fmean(_firing(model, past, one, 1))

    def cost(count: int, steps: Times, tokens: int) -> Cost:
        firing = fmean(_firing(model, past, steps, tokens))
        times_one = {"times_one": firing / firing_one, "mean_times_one": fmean(steps) / fmean(one)}
        return Cost(tokens=count, ms=firing, mean_ms=fmean(steps), **times_one)

    batches = [cost(batch, times[f"batch of {batch}"], 1) for batch in BATCHES]
    rate = 1e3 * past / times["prefill"][0]
    return Costs(
        bundle=str(model.bundle.path),
        chunks=[cost(tokens, times[f"chunk of {tokens}"], tokens) for tokens in CHUNKS],
        batches=batches,
        prefill_tokens_per_s=rate,
        of_prefill={batch.tokens: 1e3 * batch.tokens / batch.mean_ms / rate for batch in batches},
    )


def _firing(model: Model, past: int, steps: Times, tokens: int) -> Times:
    """Of steps behind the past that take each sequence so many tokens on, those that fire every stage."""
    schedule = expected_schedule(model.specs, past + len(steps) * tokens)
    each = [firings_of(spec, schedule) for spec in model.specs]
    starts = ((past + step * tokens, ms) for step, ms in enumerate(steps))
    return [ms for start, ms in starts if all(any(firings.among(start, tokens)) for firings in each)]


def show(all_costs: Sequence[Costs]) -> None:
    """Print milliseconds of a step where every stage fires and on average, each with what it is times one token."""
    table = Table("", *(Path(costs.bundle).name for costs in all_costs), box=None, title="ms, all stages fire; on average")
    for kind in ("chunks", "batches"):
        for row in zip(*(getattr(costs, kind) for costs in all_costs), strict=True):
            table.add_row(f"{kind[:5]} of {row[0].tokens}", *(_cell(cost) for cost in row))
    table.add_row("prefill, tokens/s", *(f"{costs.prefill_tokens_per_s:,.0f}" for costs in all_costs))
    for batch in BATCHES:
        table.add_row(f"batch of {batch}, of that", *(f"{costs.of_prefill[batch]:.2f}" for costs in all_costs))
    Console(width=30 + 30 * len(all_costs)).print(table)


def _cell(cost: Cost) -> str:
    return f"{cost.ms:.2f} ({cost.times_one:.2f}x); {cost.mean_ms:.2f} ({cost.mean_times_one:.2f}x)"


if __name__ == "__main__":
    run_script(main)
