"""What it gains to run stages that nobody waits for beside the others: the figures of docs/performance.md.

python -m foveal.bench.overlap
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from time import perf_counter_ns
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from ..export import convert_model
from ..files import scratch_directory
from ..runtime.model import Model, load
from ..runtime.session import Session
from .random_models import RandomModels
from .script import run_script

HIERARCHIES = ("9@16 9@4 8@1", "4@16 3@4 4@1")
THREADS = (1, 2)
_PAST, _STEPS, _ROUNDS = 256, 64, 9


class Steps(NamedTuple):
    """Milliseconds of decode steps: of all on average, and of those in which every stage fires."""

    mean: float
    all_fire: float


def main(hierarchies: Sequence[str] = HIERARCHIES, threads: Sequence[int] = THREADS) -> None:
    """Print milliseconds per decode step of top-down models in turn and overlapping, in rounds that alternate."""
    sizes = RandomModels(dim=512, heads=8, ff_dim=2048, vocab_size=256, context=_PAST + _STEPS)
    table = Table("model", "threads", "in turn, ms", "overlapping, ms", "gain", "step where all fire, ms", box=None)
    with scratch_directory() as directory:
        for hierarchy in hierarchies:
            bundle = convert_model(sizes.build(hierarchy), directory / hierarchy)
            for count in threads:
                model = load(bundle, threads=count, overlap=False)
                plain, beside = measure(model)
                row = [f"{plain.mean:.3f}", f"{beside.mean:.3f}", f"{plain.mean / beside.mean - 1:+.1%}"]
                table.add_row(hierarchy, str(count), *row, f"{plain.all_fire:.2f} -> {beside.all_fire:.2f}")
    Console().print(table)


def measure(model: Model) -> tuple[Steps, Steps]:
    """Decode steps in turn and overlapping: medians over rounds that take turns, so that noise meets both."""
    info = model.manifest.model
    sessions = [Session(model.engines, info, 1, _PAST + _STEPS, overlap) for overlap in (False, True)]
    rounds = [[_round(session) for session in sessions] for _ in range(_ROUNDS)][1:]  # the first warms up
    period = max(spec.stride for spec in sessions[0].specs)
    found = []
    for samples in zip(*rounds, strict=True):
        times = np.array(samples) / 1e6  # [rounds, steps]
        firing = times[:, period - 1 :: period]
        found.append(Steps(median(times.mean(1)), float(np.median(firing))))
    return found[0], found[1]


def _round(session: Session) -> list[int]:
    """Nanoseconds of each step after the past; the past's length is a multiple of every stride."""
    token, samples = np.zeros((1, 1), np.int64), []
    session.reset()
    session.advance(np.zeros((1, _PAST), np.int64), last_only=True)
    for _ in range(_STEPS):
        began = perf_counter_ns()
        session.advance(token, last_only=True)
        samples.append(perf_counter_ns() - began)
    return samples


if __name__ == "__main__":
    run_script(main)
