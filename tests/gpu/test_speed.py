"""A hierarchical model and a vanilla one, side by side: what `foveal bench` measures. Nothing here fails for being slow."""

from __future__ import annotations

import pytest
from gpu_outcomes import Recorder
from gpu_workshop import Contest, Workshop

from foveal.bench.decode import Load
from foveal.bench.power.find import find_sensor
from foveal.bench.power.sensor import PowerSensor
from foveal.bench.result import BenchResult, ModelResult
from foveal.bench.run import bench
from foveal.errors import ConfigError

pytestmark = pytest.mark.gpu
STEPS = 1000
"""Fewer have no 99th percentile."""


def sensor_for(contest: Contest) -> PowerSensor | None:
    """What measures power, if there is such a thing and it sees what runs."""
    try:
        return None if contest.subject.provider == "cpu" else find_sensor(target="cuda")
    except ConfigError:
        return None


def load_of(contest: Contest) -> Load:
    """Enough steps for the figures, but for the zoo's."""
    half = contest.context // 2
    return Load(half, half, 2 if contest.model == "zoo" else max(4, -(-STEPS // half)))


def test_vanilla_against_hierarchical(contest: Contest, workshop: Workshop, record: Recorder) -> None:
    """Tokens per second, latencies where coarse stages fire and where not, and joules per token."""
    bundles, subject = [bundle.path for bundle in workshop.make_pair(contest)], contest.subject
    result = bench(bundles, load_of(contest), target=subject.target, provider=subject.provider, power=sensor_for(contest))
    for model in result.models:
        record_model(record, model, f"{model.hierarchy}, {contest.context} tokens")
    record_run(record, result)


def record_model(record: Recorder, model: ModelResult, of: str) -> None:
    """What one compares."""
    latency = model.latency
    record("decode", latency.decode_tokens_per_s, "tokens/s", of)
    record("prefill", latency.prefill_tokens_per_s, "tokens/s", of)
    figures = {
        "TTFT p50": latency.ttft_ms.p50,
        "ITL p50": latency.itl_ms.p50,
        "ITL p99": latency.itl_ms.p99,
        "ITL p50, one fires": latency.itl_fire_ms.p50,
        "ITL p50, none fires": latency.itl_nofire_ms.p50,
    }
    for name, value in figures.items():
        if value is not None:
            record(name, value, "ms", of)
    if model.power is not None and model.power.missing is None:
        for name, watt_or_joule, unit in (
            ("power", model.power.mean_w, "W"),
            ("energy", model.power.j_per_token, "J/token"),
            ("energy net of idle", model.power.j_per_token_net, "J/token"),
        ):
            if watt_or_joule is not None:
                record(name, watt_or_joule, unit, of)


def record_run(record: Recorder, result: BenchResult) -> None:
    """How far one may trust it."""
    record("run", result.status)
    if result.problems:
        record("problems", "; ".join(result.problems))
    if result.power is not None:
        record("power by", f"{result.power.sensor.sensor}, {' + '.join(result.power.sensor.rails)}")
        record("idle", result.power.idle.mean_w, "W")
