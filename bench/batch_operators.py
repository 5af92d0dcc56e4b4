"""What each type of operator takes for a token of one sequence, alone, in a chunk and in a batch: what becomes cheaper and what
does not. Beside `small_batches.py`, which has what a whole step takes.

python -m foveal.bench.batch_operators BUNDLE...
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from ..bundle import Bundle, open_bundle
from ..files import scratch_directory
from ..runtime.backends import cpu_engines
from ..runtime.engines.onnxruntime import OnnxRuntimeEngine
from ..runtime.session import Session
from .onnxruntime_trace import Run, read_trace
from .operator_times import BETWEEN
from .script import run_script

PAST, SPAN = 512, 16
_ROUNDS = 6


class Case(NamedTuple):
    """Sequences that take the span behind the past in steps of so many tokens."""

    batch: int
    tokens: int
    past: int = PAST
    span: int = SPAN


CASES = {
    "one token": Case(1, 1),
    "chunk of 4": Case(1, 4),
    "batch of 4": Case(4, 1),
    "batch of 16": Case(16, 1),
    "batch of 64": Case(64, 1),
    "prompt of 512": Case(1, PAST, past=0, span=PAST),
}


def main() -> None:
    """Print a table for each bundle: microseconds per token and sequence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    for path in given.bundles:
        bundle = open_bundle(path)
        show(path.name, {name: operators(bundle, case, given.threads) for name, case in CASES.items()})


def operators(bundle: Bundle, case: Case, threads: int) -> Mapping[str, float]:
    """Microseconds per token and sequence by type of operator, each in its quietest round; timing them takes time itself."""
    fired: Counter[str] = Counter()
    sums: dict[str, float] = {}
    with scratch_directory() as directory:
        engines = cpu_engines(bundle, threads, directory)
        with Session(engines, bundle.manifest.model, case.batch, case.past + case.span) as session:
            if case.past:
                session.advance(np.zeros((case.batch, case.past), np.int64), last_only=True)
            session.observer = lambda spec, _firings, _ns: fired.update([spec.name])
            for _ in range(_ROUNDS):
                session.rewind(session.position - case.past)
                for _ in range(case.span // case.tokens):
                    session.advance(np.zeros((case.batch, case.tokens), np.int64), last_only=True)
        for engine in engines:
            count = fired[engine.spec.name]
            runs = read_trace(Path(_session_of(engine, case).end_profiling()))[-count:]
            rounds = [_sums(runs[start : start + count // _ROUNDS]) for start in range(0, count, count // _ROUNDS)]
            for operator in rounds[0]:
                sums[operator] = sums.get(operator, 0.0) + min(found[operator] for found in rounds)
    return {operator: us / (case.span * case.batch) for operator, us in sums.items()}


def _session_of(engine: OnnxRuntimeEngine, case: Case) -> Any:
    """The session that ran the span: many rows may have one of their own."""
    return engine.for_rows(case.tokens // engine.spec.stride).session


def _sums(runs: Sequence[Run]) -> dict[str, float]:
    found: dict[str, float] = {}
    for run in runs:
        for operator, us in (*run.operators, (BETWEEN, run.between_us)):
            found[operator] = found.get(operator, 0.0) + us
    return found


def show(title: str, found: Mapping[str, Mapping[str, float]]) -> None:
    """Print operators by what they take of one token alone."""
    table = Table("us per token", *found, box=None, title=title)
    every = {operator: max(sums.get(operator, 0.0) for sums in found.values()) for sums in found.values() for operator in sums}
    for operator in sorted(every, key=lambda operator: -every[operator]):
        table.add_row(operator, *(f"{sums.get(operator, 0.0):.1f}" for sums in found.values()))
    table.add_row("all", *(f"{sum(sums.values()):.1f}" for sums in found.values()))
    Console(width=120).print(table)


if __name__ == "__main__":
    run_script(main)
