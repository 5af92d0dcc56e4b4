"""What a benchmark says: one schema for the JSON, the table and the comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Literal

import msgspec

from ..errors import ConfigError
from ..json_files import decode
from .batch_result import BatchResult, BatchStepSamples
from .decode import DecodeSamples
from .environment import Environment
from .power.result import PowerResult, PowerSetup
from .ratio import Ratio
from .statistics import NS_PER_MS, Summary, summarise

BENCH_SCHEMA_VERSION = 5
"""2 added the state of the device, and power; 3 batches; 4 what the data decides; 5 figures by round, comparisons and what
fired in each step. Files of 1 to 4 can still be read."""

Metric = Literal["decode_tokens_per_s", "prefill_tokens_per_s", "itl_p50_ms"]


_AGAIN = "write one: foveal bench BUNDLE... --save F"


class LatencyResult(msgspec.Struct, frozen=True, kw_only=True):
    """Time to the first token, time between tokens (all, those where a coarse stage fires, the others), and rates; of some also
    the value of each round, in the order of the rounds."""

    ttft_ms: Summary
    itl_ms: Summary
    itl_fire_ms: Summary
    itl_nofire_ms: Summary
    decode_tokens_per_s: float
    decode_tokens_per_s_by_round: list[float]
    prefill_tokens_per_s: float
    prefill_tokens_per_s_by_round: list[float] = []
    itl_p50_ms_by_round: list[float] = []


class StageResult(msgspec.Struct, frozen=True, kw_only=True):
    """One stage while decoding; `engine_ms` is per call of its engine. It fires with the tokens `stride * i + delay`.

    Where the data decides, `expected` says after how many tokens on average it is expected to, and `fires` what it did; else it
    is null. `runs_on` says of CPU engines whether a stage runs natively, and if not, why.
    """

    name: str
    stride: int
    fires: int
    engine_ms: Summary
    ms_per_token: float
    weight_bytes: int
    delay: int = 0
    expected: float | None = None
    runs_on: str = ""


class MemoryResult(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes; `peak_bytes` is the high-water mark of a fresh process that loads and decodes, interpreter included."""

    weights_bytes: int
    state_reserved_bytes: int
    peak_bytes: int | None
    peak_method: str


class RooflineResult(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes a decode step must read (weights by firing rate, cached keys and values by length) against the memory bandwidth."""

    weight_bytes_per_token: float
    cache_bytes_per_token: float
    memory_bandwidth_gb_s: float
    achieved_gb_s: float
    achieved_weights_gb_s: float
    share: float
    weights_share: float


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """Raw nanoseconds, in order; `token` is the position of each decode step, `fired` whether it ran a coarse stage.

    `stages`: sets of stages that fired together; `stage_set`: of each step, which of these did.
    """

    ttft_ns: list[int]
    itl_ns: list[int]
    token: list[int]
    stage_ns: dict[str, list[int]]
    fired: list[bool] = []
    stages: list[tuple[str, ...]] = []
    stage_set: list[int] = []


class ModelResult(msgspec.Struct, frozen=True, kw_only=True):
    """One model's figures. Tokens per second are of one sequence; `power` is null where it was not measured.

    `batches` has those of many sequences at once, where they were asked for. `period`: tokens after which the same stages fire
    again, by their strides.
    """

    name: str
    runtime: str
    hierarchy: str
    precision: str
    layers: int
    parameters: int
    layer_equivalents: float
    threads: int
    latency: LatencyResult
    fires: dict[str, int]
    copied_bytes_per_step: float | None
    host_us_per_step: float | None
    stages: list[StageResult]
    memory: MemoryResult | None
    roofline: RooflineResult | None
    samples: Samples
    power: PowerResult | None = None
    batches: list[BatchResult] = []
    period: int = 1


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A metric of one model in those of another, the first of the run: each round against the round of the same number."""

    name: str
    than: str
    metric: Metric
    ratio: Ratio


class BenchResult(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run; `problems` says why its status is not `"complete"`: figures are missing, or rounds differ much.

    `reads`: what is decoded, `"text"` that was given or `"random ids"` and what a model finds likeliest after them. `power` is
    null with a reason in `power_missing`. `batch`: the most sequences that decoded at once.
    """

    schema_version: int
    command: str
    environment: Environment
    prompt_tokens: int
    new_tokens: int
    rounds: int
    seed: int
    batch: int
    status: Literal["complete", "noisy", "incomplete"]
    problems: list[str]
    models: list[ModelResult]
    power: PowerSetup | None = None
    power_missing: str | None = None
    reads: Literal["random ids", "text"] = "random ids"
    comparisons: list[Comparison] = []


def latency_of(samples: DecodeSamples, prompt_tokens: int) -> LatencyResult:
    """Summarise a model's samples; a step is a firing one when its token fired any coarse stage."""
    itl_ms = [ns / NS_PER_MS for ns in samples.itl_ns]
    steps = len(itl_ms) // len(samples.round_tokens_per_s)
    fires = samples.fired
    return LatencyResult(
        ttft_ms=summarise([ns / NS_PER_MS for ns in samples.ttft_ns], "ms"),
        itl_ms=summarise(itl_ms, "ms"),
        itl_fire_ms=summarise([ms for ms, fired in zip(itl_ms, fires, strict=True) if fired], "ms"),
        itl_nofire_ms=summarise([ms for ms, fired in zip(itl_ms, fires, strict=True) if not fired], "ms"),
        decode_tokens_per_s=median(samples.round_tokens_per_s),
        decode_tokens_per_s_by_round=samples.round_tokens_per_s,
        prefill_tokens_per_s=prompt_tokens / (median(samples.ttft_ns) * 1e-9),
        prefill_tokens_per_s_by_round=[prompt_tokens / (ns * 1e-9) for ns in samples.ttft_ns],
        itl_p50_ms_by_round=[median(itl_ms[first : first + steps]) for first in range(0, len(itl_ms), steps)],
    )


def samples_of(kept: DecodeSamples, stage_ns: dict[str, list[int]]) -> Samples:
    """Raw samples as they are saved."""
    sets = list(dict.fromkeys(kept.stages))
    numbers = {stages: number for number, stages in enumerate(sets)}
    return Samples(
        ttft_ns=kept.ttft_ns,
        itl_ns=kept.itl_ns,
        token=kept.tokens,
        stage_ns=stage_ns,
        fired=kept.fired,
        stages=sets,
        stage_set=[numbers[stages] for stages in kept.stages],
    )


def without_samples(result: BenchResult) -> BenchResult:
    """The figures alone, for what is kept for long: about a thousandth of the size."""
    return msgspec.structs.replace(result, models=[_without(model) for model in result.models])


def _without(model: ModelResult) -> ModelResult:
    none = Samples(ttft_ns=[], itl_ns=[], token=[], stage_ns={})
    of_batch = BatchStepSamples(itl_ns=[], firing_set=[], positions=[])
    batches = [msgspec.structs.replace(batch, samples=of_batch) for batch in model.batches]
    return msgspec.structs.replace(model, samples=none, batches=batches)


def read_result(path: Path) -> BenchResult:
    """What `foveal bench --save` wrote.

    Raises:
        ConfigError: it can't be read, or is no benchmark's result, or one of a newer foveal, or its rounds were altered.
    """
    try:
        result = decode(path.read_bytes(), BenchResult)
    except OSError as error:
        raise ConfigError(f"{path} can't be read ({error.strerror}); {_AGAIN}") from error
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} holds no benchmark's result ({error}); {_AGAIN}") from error
    require_version(path, "result", result.schema_version, BENCH_SCHEMA_VERSION)
    for model in result.models:
        latency = model.latency
        require_rounds(path, f"{model.name}: decode_tokens_per_s", latency.decode_tokens_per_s_by_round, result.rounds)
        for name in ("prefill_tokens_per_s_by_round", "itl_p50_ms_by_round"):
            if found := getattr(latency, name):  # earlier versions kept none
                require_rounds(path, f"{model.name}: {name}", found, result.rounds)
    return result


def require_version(path: Path, kind: str, found: int, newest: int) -> None:
    """Raises ConfigError where a saved file is of a newer foveal."""
    if found > newest:
        raise ConfigError(
            f"{path} holds a {kind} of version {found}, this foveal reads {newest} and older; measure again with this one"
        )


def require_rounds(path: Path, name: str, found: Sequence[float], rounds: int) -> None:
    """Raises ConfigError unless a saved figure is there for each round and above 0, as ratios take its logarithm."""
    if len(found) != rounds or not all(value > 0 for value in found):
        raise ConfigError(
            f"{path} was altered: {name} by round is {list(found)}, expected {rounds} numbers above 0; measure it again"
        )
