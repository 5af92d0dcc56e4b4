"""The figures of a saved result, each by a name that stays the same from run to run: what two results are compared by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError
from .batch_result import BatchResult, name_of
from .result import BenchResult, ModelResult
from .sweep_result import SweepPoint, SweepResult

Kind = Literal["rounds", "once", "steady", "exact"]
"""How a figure can be judged: it was measured in every round; once, so that nobody knows its noise; once, and hardly has any;
or it is counted."""


@dataclass(frozen=True)
class Figure:
    """What was measured.

    Attributes:
        values: by round, or one.
        unit: of them.
        kind: how it can be judged.
    """

    values: Sequence[float]
    unit: str
    kind: Kind


Figures = dict[tuple[str, str], Figure]
"""By whose it is, and what."""


def figures_of(result: BenchResult | SweepResult) -> Figures:
    """All that there are; those that were not measured are left out.

    Raises:
        ConfigError: figures go by name, and two have the same.
    """
    _require_names(
        [one.label for one in result.points] if isinstance(result, SweepResult) else [one.name for one in result.models]
    )
    if isinstance(result, SweepResult):
        return {(point.label, name): figure for point in result.points for name, figure in _of_point(point)}
    found = {(model.name, name): figure for model in result.models for name, figure in _of_model(model)}
    for model in result.models:
        for batch in model.batches:
            found |= {(f"{model.name}, {name_of(batch)}", name): figure for name, figure in _of_batch(batch)}
    return {key: figure for key, figure in found.items() if figure.values}


def _require_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"two of what was measured are called {name}, and figures go by name; rename one bundle, and measure again"
            )


def _of_model(model: ModelResult) -> Iterator[tuple[str, Figure]]:
    latency = model.latency
    yield "decode", Figure(latency.decode_tokens_per_s_by_round, "tokens/s", "rounds")
    yield "prefill", _by_round(latency.prefill_tokens_per_s_by_round, latency.prefill_tokens_per_s, "tokens/s")
    yield "ITL p50", _by_round(latency.itl_p50_ms_by_round, latency.itl_ms.p50, "ms")
    yield "ITL p99", _once(latency.itl_ms.p99, "ms")
    yield "host side of a step", _once(model.host_us_per_step, "us")
    for stage in model.stages:
        yield f"stage {stage.name}, p50", _once(stage.engine_ms.p50, "ms")
    yield "copied per step", _counted(model.copied_bytes_per_step, "bytes")
    if model.memory is not None:
        yield "weights", _counted(model.memory.weights_bytes, "bytes")
        yield "state", _counted(model.memory.state_reserved_bytes, "bytes")
        peak = model.memory.peak_bytes
        yield "peak of a process", Figure([] if peak is None else [peak], "bytes", "steady")
    if model.roofline is not None:
        yield "read per token", _counted(model.roofline.weight_bytes_per_token + model.roofline.cache_bytes_per_token, "bytes")
    if model.power is not None:
        yield "energy of a token", _once(model.power.j_per_token, "J")


def _of_batch(batch: BatchResult) -> Iterator[tuple[str, Figure]]:
    yield "decode", Figure(batch.tokens_per_s_by_round, "tokens/s", "rounds")
    yield "step p50", _once(batch.itl_ms.p50, "ms")
    yield "state", _counted(batch.state_reserved_bytes, "bytes")


def _of_point(point: SweepPoint) -> Iterator[tuple[str, Figure]]:
    yield "decode", Figure(point.tokens_per_s_by_round, "tokens/s", "rounds")
    yield "step p50", _once(point.itl_ms.p50, "ms")


def _by_round(values: Sequence[float], value: float | None, unit: str) -> Figure:
    """Of files that have no values by round, the one there is."""
    return Figure(values, unit, "rounds") if values else _once(value, unit)


def _once(value: float | None, unit: str) -> Figure:
    return Figure([] if value is None else [value], unit, "once")


def _counted(value: float | None, unit: str) -> Figure:
    return Figure([] if value is None else [value], unit, "exact")
