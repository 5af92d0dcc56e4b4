"""What every family must do beyond its own forward: engines of all kinds, precisions, a benchmark, with no code of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from exactness import Walk

from foveal.bench.decode import Load
from foveal.bench.run import bench
from foveal.bundle import Bundle
from foveal.calibration.calibrate import calibrate_ids
from foveal.calibration.settings import CalibrationSettings
from foveal.export import build, convert_model, verify
from foveal.export.tensorrt.options import EngineOptions
from foveal.models import Architecture
from foveal.runtime import load
from foveal.runtime.rows import Array

PREFILL = 16
WALK = (
    ("advance", 24),
    ("advance", 1),
    ("advance", 1),
    ("rewind", 5),
    ("advance", 3),
    ("snapshot", 0),
    ("advance", 7),
    ("restore", 0),
)
CLOSE = 0.25
"""Of the spread of the logits, how far small random models may be off in integers: enough to notice what is broken."""


def check_engines(model: Architecture, directory: Path) -> None:
    """Convert a small model and put it through all of it; random ids calibrate it."""
    bundle = convert_model(model, directory / "fp32")
    verify(bundle, model).require_equal()
    _check_walk(model, bundle, "cpu")
    capacity = min(bundle.manifest.model.context, 64)
    resident = build(bundle, target="cuda", options=EngineOptions(max_batch=2, capacity=capacity, max_prefill=PREFILL))
    _check_walk(model, resident, "cuda")
    built = {"fp32": resident, **_check_precisions(model, bundle, directory)}
    for precision, dialect in (("fp32", "modern"), ("int8", "classic")):
        options = EngineOptions(capacity=capacity, max_prefill=PREFILL, dialect=dialect)
        assert "tensorrt-rtx" in build(built[precision], target="tensorrt-rtx", options=options).manifest.engines
    (measured,) = bench([bundle.path], Load(prompt_tokens=5, new_tokens=12, rounds=1), threads=1).models
    assert measured.latency.decode_tokens_per_s > 0


def _logits(model: Architecture, ids: Array) -> Array:
    with torch.no_grad():
        found: Array = model(torch.from_numpy(ids)).numpy()
    return found


def _check_walk(model: Architecture, bundle: Bundle, target: str) -> None:
    session = load(bundle, target, threads=1, provider="cpu" if target == "cuda" else None).session(2)
    walk = Walk(session, lambda ids: _logits(model, ids))
    for step, tokens in WALK:
        walk.take(step, tokens)


def _check_precisions(model: Architecture, bundle: Bundle, directory: Path) -> dict[str, Bundle]:
    rng, info = np.random.default_rng(0), bundle.manifest.model
    seen = rng.integers(0, info.vocab_size, 3000)
    ranges = calibrate_ids(load(bundle, threads=1), seen, CalibrationSettings())
    ids = seen[None, : min(info.context, 64) - 3]
    expected, built = _logits(model, ids), {}
    for precision in ("int8", "w8", "fp16"):
        built[precision] = build(bundle, directory / precision, precision, "cpu", calibration=ranges)
        got = load(built[precision], threads=1).session().advance(ids)
        error = np.sqrt(np.square(got - expected).mean()) / expected.std()
        assert 0 < error < CLOSE, f"{precision}: {error}"
    return built
