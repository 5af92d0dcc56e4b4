"""What a decode step costs against the length used, at a fixed capacity: the figures of docs/adr/0003.

python -m foveal.bench.attention_length
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from time import perf_counter_ns

import numpy as np
from rich.console import Console
from rich.table import Table

from ..bundle import Bundle
from ..export import convert_model
from ..files import scratch_directory
from ..runtime.engines.onnxruntime import OnnxRuntimeEngine
from ..runtime.session import Session
from .random_models import RandomModels
from .script import run_script

CAPACITY = 4096
LENGTHS = (16, 128, 512, 1024, 2048, 4000)
_STEPS = 40


def main(hierarchy: str = "4@1", threads: int = 2) -> None:
    """Print milliseconds per decode step of the portable graph and of the engine made from it."""
    sizes = RandomModels(dim=512, heads=8, ff_dim=2048, vocab_size=256, context=CAPACITY)
    with scratch_directory() as directory:
        bundle = convert_model(sizes.build(hierarchy), directory / "bundle")
        sessions = {
            "portable graph": _session(bundle, [entry.graph for entry in bundle.manifest.stages], threads),
            "CPU engine": _session(bundle, list(bundle.manifest.engines["cpu"].values()), threads),
        }
        table = Table("used length", *sessions, title=f"{hierarchy}, capacity {CAPACITY}, ms per decode step", box=None)
        for length in LENGTHS:
            table.add_row(str(length), *(f"{_step_ms(session, length):.2f}" for session in sessions.values()))
    Console().print(table)


def _session(bundle: Bundle, graphs: Sequence[str], threads: int) -> Session:
    engines = [
        OnnxRuntimeEngine(entry.spec, bundle.file(graph), bundle.sidecar("cpu", entry.spec.name), threads)
        for entry, graph in zip(bundle.manifest.stages, graphs, strict=True)
    ]
    return Session(engines, bundle.manifest.model, 1, CAPACITY)


def _step_ms(session: Session, length: int) -> float:
    """Median milliseconds of a step after `length` tokens."""
    token, samples = np.zeros((1, 1), np.int64), []
    session.advance(np.zeros((1, length - session.position), np.int64), last_only=True)
    for _ in range(_STEPS):
        began = perf_counter_ns()
        session.advance(token, last_only=True)
        samples.append(perf_counter_ns() - began)
        session.rewind(1)
    return median(samples) / 1e6


if __name__ == "__main__":
    run_script(main)
