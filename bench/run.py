"""Benchmark bundles side by side.

Rounds of all models, and of reading plain memory, alternate: whatever disturbs the machine disturbs all of them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec

from ..bundle import bundle_name
from ..contract import period_of
from ..errors import ConfigError
from ..forecast.traffic import bytes_per_token
from ..progress import Progress
from ..runtime.model import Model, load
from ..runtime.session import Session
from .bandwidth import MemoryReader
from .batch_result import BatchResult, batch_result, name_of
from .batch_rounds import BatchLoad, BatchRounds, batch_host_ns_per_step, open_rounds
from .comparison import compare, require_comparable
from .decode import DecodeSamples, Load, host_ns_per_step, measure_round, measure_stages
from .device import read_device, throttling
from .eager import EagerModel
from .environment import Environment, peak_resident_bytes, read_environment
from .names import require_different_names
from .power.measure import PowerTimes, measure_all
from .power.result import PowerResult, PowerSetup
from .power.sensor import PowerSensor
from .result import (
    BENCH_SCHEMA_VERSION,
    BenchResult,
    MemoryResult,
    ModelResult,
    RooflineResult,
    StageResult,
    latency_of,
    samples_of,
)
from .statistics import NS_PER_MS, QUIET_SPREAD, spread_of, summarise

_PEAK = "peak resident bytes (VmHWM) of a fresh process: load, prefill, decode"
_POWER_TIMES = PowerTimes()
_OFF = 1.5
"""By what factor stages may fire more or less often than is expected."""


def bench(
    bundles: Sequence[str | Path],
    work: Load,
    *,
    target: str = "cpu",
    provider: str | None = None,
    threads: int | None = None,
    native: bool | None = None,
    eager: Sequence[EagerModel] = (),
    power: PowerSensor | None = None,
    power_times: PowerTimes = _POWER_TIMES,
    batch: BatchLoad | None = None,
    text: str | None = None,
    comparing: bool = False,
    command: str = "",
    on_progress: Progress | None = None,
) -> BenchResult:
    """Measure bundles, and optionally PyTorch models decoded eagerly, in one run.

    Args:
        bundles: bundle directories.
        work: prompt, new tokens and rounds.
        target: whose engines to run.
        provider: what `cuda` engines run on, as `load` takes it.
        threads: of all models, PyTorch's too; None: the number that decodes the first bundle fastest.
        native: whether stages run natively, as `load` takes it.
        eager: models to decode with PyTorch's own incremental `step` in the same rounds.
        power: what to measure energy with, after the rounds; PyTorch models are left out.
        power_times: for how long.
        batch: how many sequences to decode together too, by which policies, in the same rounds; PyTorch models are left out.
        text: what to read and to go on with, instead of random ids and what each model finds likeliest after them. Where the
            data decides what fires, random ids fire otherwise than text does.
        comparing: whether to compare all models with the first.
        command: what the user typed, for the record.
        on_progress: called before each part.

    Raises:
        BundleError, ConfigError, BackendUnavailable: as `load`; ConfigError for a text that is too short, or one with PyTorch
            models, which read random ids; for a comparison of one model, or by too few rounds; for two bundles of one name.
        CapacityError: the prompt and new tokens do not fit a model's context, or a batch's state not the memory.
        EngineMismatchError: engines that were built before sequences of a batch had positions of their own.
    """
    if text is not None and eager:
        raise ConfigError("PyTorch models read random ids: leave the text out, or them")
    require_different_names(bundles)
    if comparing:
        require_comparable(len(bundles) + len(eager), work.rounds)
    slots, policies = (1, ()) if batch is None else (batch.slots, batch.policies)
    in_round = len(bundles) * (1 + len(policies)) + len(eager)
    steps = 2 * len(bundles) + in_round * (work.rounds + 1) + (0 if power is None else 1 + len(bundles))
    part = _Parts(steps, on_progress)
    environment = read_environment()
    models, works = [], []
    for path in bundles:
        part.begins(f"loading {bundle_name(path)}")
        models.append(load(path, target, threads, provider, native=native))
        if target == "cpu":
            threads = models[0].threads  # or one would be compared with another of more threads
        work.require_room(models[-1])
        works.append(work.reading(models[-1], text))
        if batch is not None:
            batch.require_room(models[-1], work)
    sessions = [model.session(capacity=work.prompt_tokens + work.new_tokens) for model in models]
    samples = [DecodeSamples() for _ in models]
    batches = [
        [open_rounds(model, own, slots, policy) for policy in policies] for model, own in zip(models, works, strict=True)
    ]
    bandwidths = []
    with MemoryReader() as memory:
        for number in range(work.rounds + 1):
            is_warm_up = number == 0
            label = "warm-up" if is_warm_up else f"round {number}"
            for model, own, session, kept, of_slots in zip(models, works, sessions, samples, batches, strict=True):
                part.begins(f"{model.bundle.name}: {label}")
                measure_round(session, own, None if is_warm_up else kept)
                for rounds in of_slots:
                    part.begins(f"{model.bundle.name}, {slots} {rounds.batch.policy}: {label}")
                    rounds.run(is_warm_up)
            for reference in eager:
                part.begins(f"{reference.name}: {label}")
                reference.measure_round(work, is_warm_up, models[0].threads)
            bandwidths.append(memory.gb_s())
    setup: PowerSetup | None = None
    powers: Sequence[PowerResult | None] = [None] * len(models)
    if power is not None:
        setup, powers = measure_all(power, sessions, work, power_times, part.begins)
    environment = msgspec.structs.replace(environment, memory_bandwidth_gb_s=median(bandwidths), device_after=read_device())
    results = []
    for model, own, session, kept, of_slots, energy in zip(models, works, sessions, samples, batches, powers, strict=True):
        part.begins(f"{model.bundle.name}: stages, host side, peak memory")
        result = _model_result(model, session, own, kept, median(bandwidths), energy)
        results.append(msgspec.structs.replace(result, batches=[_batch_result(model, own, result, it) for it in of_slots]))
    results += [reference.result() for reference in eager]
    missing = _missing(results)
    noise = _noise(results) + _unexpected(results) + _throttling(environment) + _blind_sensor(setup, target)
    return BenchResult(
        schema_version=BENCH_SCHEMA_VERSION,
        command=command,
        environment=environment,
        prompt_tokens=work.prompt_tokens,
        new_tokens=work.new_tokens,
        rounds=work.rounds,
        seed=work.seed,
        batch=slots,
        status="incomplete" if missing else "noisy" if noise else "complete",
        problems=missing + noise,
        models=results,
        power=setup,
        power_missing="not asked for" if power is None else None,
        reads="random ids" if text is None else "text",
        comparisons=compare(results) if comparing else [],
    )


class _Parts:
    """Counts the parts of a run for whoever watches its progress."""

    def __init__(self, total: int, on_progress: Progress | None) -> None:
        self._total, self._done, self._report = total, 0, on_progress

    def begins(self, doing: str) -> None:
        if self._report is not None:
            self._report(doing, self._done, self._total)
        self._done += 1


def _model_result(
    model: Model, session: Session, work: Load, kept: DecodeSamples, bandwidth: float, power: PowerResult | None
) -> ModelResult:
    info = model.manifest.model
    stage_ns = measure_stages(session, work)
    return ModelResult(
        name=model.bundle.name,
        runtime=_runtime(model),
        hierarchy=info.hierarchy,
        precision=model.manifest.precision,
        layers=sum(entry.spec.layers for entry in model.manifest.stages),
        parameters=info.parameters,
        layer_equivalents=info.layer_equivalents,
        threads=model.threads,
        latency=latency_of(kept, work.prompt_tokens),
        fires={name: len(ns) for name, ns in stage_ns.items()},
        copied_bytes_per_step=kept.copied_bytes_per_step,
        host_us_per_step=_host_us(model, work),
        stages=_stage_results(model, stage_ns, work.new_tokens),
        memory=MemoryResult(
            weights_bytes=sum(entry.weight_bytes for entry in model.manifest.stages),
            state_reserved_bytes=sum(session.state_bytes.values()),
            peak_bytes=_peak_bytes(model, work),
            peak_method=_PEAK,
        ),
        roofline=_roofline(model, session, work, median(kept.round_tokens_per_s), bandwidth),
        samples=samples_of(kept, stage_ns),
        power=power,
        period=period_of(model.specs),
    )


def _batch_result(model: Model, work: Load, one: ModelResult, rounds: BatchRounds) -> BatchResult:
    batch = rounds.batch
    return batch_result(
        batch.policy,
        batch.slots,
        rounds.samples,
        batch.specs,
        (one.latency.decode_tokens_per_s, one.latency.prefill_tokens_per_s),
        batch_host_ns_per_step(model, work, batch.slots, batch.policy) / 1e3 if model.host_engines else None,
        sum(batch.state_bytes.values()),
    )


def _runtime(model: Model) -> str:
    """The target, its provider, and how many stages run natively."""
    native, stages = len(model.native_stages), len(model.manifest.stages)
    provider = f" on {model.provider}" if model.provider else ""
    return f"foveal, {model.target}{provider}" + (f", native {native} of {stages}" if native else "")


def _host_us(model: Model, work: Load) -> float | None:
    """Only engines that the host drives one by one can be run idle."""
    return host_ns_per_step(model, work) / 1e3 if model.host_engines else None


def _stage_results(model: Model, stage_ns: dict[str, list[int]], new_tokens: int) -> list[StageResult]:
    return [
        StageResult(
            name=entry.spec.name,
            stride=entry.spec.stride,
            fires=len(stage_ns[entry.spec.name]),
            delay=entry.spec.delay,
            expected=None if entry.spec.clock is None else entry.spec.tokens_per_firing,
            engine_ms=summarise([ns / NS_PER_MS for ns in stage_ns[entry.spec.name]], "ms"),
            ms_per_token=sum(stage_ns[entry.spec.name]) / NS_PER_MS / new_tokens,
            weight_bytes=entry.weight_bytes,
            runs_on=model.runs_on.get(entry.spec.name, ""),
        )
        for entry in model.manifest.stages
    ]


def _roofline(model: Model, session: Session, work: Load, tokens_per_s: float, bandwidth: float) -> RooflineResult:
    """By what the session fired, which has just decoded these tokens."""
    read = bytes_per_token(model.bundle, model.target, work.prompt_tokens, work.new_tokens, session.schedule)
    achieved = read.total * tokens_per_s / 1e9
    return RooflineResult(
        weight_bytes_per_token=read.weights,
        cache_bytes_per_token=read.caches,
        memory_bandwidth_gb_s=bandwidth,
        achieved_gb_s=achieved,
        achieved_weights_gb_s=read.weights * tokens_per_s / 1e9,
        share=achieved / bandwidth,
        weights_share=read.weights * tokens_per_s / 1e9 / bandwidth,
    )


def _peak_bytes(model: Model, work: Load) -> int | None:
    """Decode in a fresh process and read its high-water mark; None where that process fails."""
    threads = str(model.threads) if model.target == "cpu" else ""
    sizes = [str(work.prompt_tokens), str(work.new_tokens)]
    native = "" if model.target != "cpu" else "yes" if model.native_stages else "no"
    arguments = [str(model.bundle.path), model.target, model.provider or "", threads, *sizes, native]
    code = "import sys; from foveal.bench.run import print_peak; print_peak(*sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else None


def print_peak(
    bundle: str, target: str, provider: str, threads: str, prompt_tokens: str, new_tokens: str, native: str = ""
) -> None:
    """Load, run one round, print this process's peak resident bytes (the body of the process `bench` starts)."""
    work = Load(int(prompt_tokens), int(new_tokens))
    model = load(bundle, target, int(threads) if threads else None, provider or None, native=False if native == "no" else None)
    session = model.session(capacity=work.prompt_tokens + work.new_tokens)
    measure_round(session, work, None)
    print(peak_resident_bytes())


def _missing(results: Sequence[ModelResult]) -> list[str]:
    """Figures that could not be had."""
    missing = [
        f"{result.name}: {result.latency.itl_ms.count} decode steps are too few for p99; use at least 1000"
        for result in results
        if result.latency.itl_ms.p99 is None
    ]
    missing += [
        f"{result.name}, {name_of(batch)}: {batch.itl_ms.count} steps are too few for p99; use at least 1000"
        for result in results
        for batch in result.batches
        if batch.itl_ms.p99 is None
    ]
    missing += [
        f"{result.name}: peak memory could not be measured"
        for result in results
        if result.memory is not None and result.memory.peak_bytes is None
    ]
    missing += [
        f"{result.name}: {result.power.missing}"
        for result in results
        if result.power is not None and result.power.missing is not None
    ]
    return missing


def _noise(results: Sequence[ModelResult]) -> list[str]:
    """What makes figures doubtful: something else ran on the machine, or beside it."""
    by_round = {result.name: result.latency.decode_tokens_per_s_by_round for result in results}
    by_round |= {
        f"{result.name}, {name_of(batch)}": batch.tokens_per_s_by_round for result in results for batch in result.batches
    }
    return [
        f"{name}: rounds differ by {spread:.0%}; the machine was not quiet"
        for name, rates in by_round.items()
        if (spread := spread_of(rates)) > QUIET_SPREAD
    ]


def _unexpected(results: Sequence[ModelResult]) -> list[str]:
    """Stages whose firings the data decides, and that fired much more or less often than is expected of text."""
    found = []
    for result in results:
        for stage in result.stages:
            tokens = len(result.samples.itl_ns) // len(result.latency.decode_tokens_per_s_by_round)
            if stage.expected is None or 1 / _OFF < tokens / max(stage.fires, 0.5) / stage.expected < _OFF:
                continue
            found.append(
                f'{result.name}: stage "{stage.name}" fired {stage.fires} times in {tokens} tokens, one in '
                f"{stage.expected:g} is expected of text; give some with --text"
            )
    return found


def _throttling(environment: Environment) -> list[str]:
    before, after = environment.device, environment.device_after
    return [] if before is None or after is None else throttling(before, after)


def _blind_sensor(setup: PowerSetup | None, target: str) -> list[str]:
    """A sensor that does not see what ran."""
    if setup is None:
        return []
    if target == "cpu" and setup.sensor.sensor == "nvidia-smi":
        return ["power is the graphics board's, but the engines ran on the CPU"]
    if target != "cpu" and setup.sensor.sensor == "RAPL":
        return ["power is the processors', but the engines ran on the GPU"]
    return []
