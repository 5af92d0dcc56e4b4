"""What every operator of a bundle's engines takes in decoding, as the engines' own library times it: ONNX Runtime on the CPU,
TensorRT on the GPU that its engines are for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from ..bundle import Bundle
from ..contract import StageSpec
from ..errors import ConfigError
from ..files import scratch_directory
from ..runtime.backends import cpu_engines, open_engines
from ..runtime.engines.onnxruntime_library import require_threads
from ..runtime.expected import expected_period, expected_schedule
from ..runtime.model import threads_of
from ..runtime.resident import ResidentDecoder
from ..runtime.session import Session
from .onnxruntime_trace import read_trace

BETWEEN = "between operators"
"""The library's own time in a run of an engine."""


class OperatorTime(msgspec.Struct, frozen=True, kw_only=True):
    """All operators of one type in one stage, or kernels of one kind; per token, so a stage counts as often as it fires."""

    operator: str
    calls_per_token: float
    us_per_token: float
    share: float


class StageTime(msgspec.Struct, frozen=True, kw_only=True):
    """One stage, and its operators, the slowest first; `share` is of the time of all stages.

    Where the data decides, it fires as often as is expected of text.
    """

    name: str
    fires_per_token: float
    us_per_token: float
    share: float
    operators: tuple[OperatorTime, ...]


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Decode steps, engine by engine. Timing takes time itself: read the shares; `foveal bench` says how long steps take."""

    target: str
    threads: int
    tokens: int
    us_per_token: float
    stages: tuple[StageTime, ...]


class Spent(NamedTuple):
    """What operators of one type took in all steps together."""

    calls: int = 0
    us: float = 0.0


def profile(bundle: Bundle, target: str = "cpu", tokens: int = 256, threads: int | None = None) -> Profile:
    """Decode over whole periods of firing, one token at a time and stage after stage, with every operator timed.

    CPU engines run their graphs on ONNX Runtime for it, also where stages have native steps, which nothing times one by one.

    Where the data decides who fires, stages are made to fire as often as is expected of text.

    Args:
        bundle: it has engines for the target.
        target: `"cpu"`, `"tensorrt"` or `"tensorrt-rtx"`.
        tokens: about so many, after one period that warms up.
        threads: of `cpu` engines; None: as `load` chooses.

    Raises:
        ConfigError: a target whose operators nobody times, or that the bundle has no engines for; no such number of threads.
        BackendUnavailable, EngineMismatchError: the engines can't be run here.
    """
    if target == "cuda":
        raise ConfigError("operators are timed on targets cpu, tensorrt and tensorrt-rtx, got cuda; profile the cpu engines")
    if target not in bundle.manifest.engines:
        raise ConfigError(f"{bundle.path} has no engines for {target}; add them: foveal build {bundle.path} --target {target}")
    specs = [entry.spec for entry in bundle.manifest.stages]
    if target == "cpu":
        if threads is not None:
            require_threads(threads)
        chosen = threads_of(bundle, native=False) if threads is None else threads
        timed = _timed_tokens(specs, bundle.manifest.model.context, tokens)
        return _summary(target, chosen, timed, *_on_cpu(bundle, timed, chosen))
    with Session(open_engines(bundle, target, graphs=False), bundle.manifest.model) as session:
        timed = _timed_tokens(specs, session.capacity, tokens)
        return _summary(target, 1, timed, *_on_tensorrt(bundle, target, session, timed))


def _timed_tokens(specs: Sequence[StageSpec], context: int, tokens: int) -> range:
    """Whole periods behind one that warms up, as far as the context allows."""
    period = expected_period(specs, 1)
    begin = period if context >= 2 * period else 0
    return range(begin, begin + max(min(tokens, context - begin) // period * period, min(period, context - begin)))


def _on_cpu(bundle: Bundle, timed: range, threads: int) -> tuple[dict[str, int], dict[str, dict[str, Spent]]]:
    """How often each stage fired, and what its operators took."""
    with scratch_directory() as directory:
        engines = cpu_engines(bundle, threads, directory)
        before = Counter[str]()  # calls
        with Session(engines, bundle.manifest.model, 1, timed.stop) as session:
            session.observer = lambda spec, _firings, _ns: before.update([spec.name])
            session.follow(expected_schedule(session.specs, timed.stop))
            _decode(session, timed.start)
            session.observer = None
            fires = _decode(session, len(timed))
        found = {}
        for engine in engines:
            runs = read_trace(Path(engine.session.end_profiling()))[before[engine.spec.name] :]
            found[engine.spec.name] = _sums([spent for run in runs for spent in (*run.operators, (BETWEEN, run.between_us))])
    return fires, found


def _on_tensorrt(
    bundle: Bundle, target: str, session: Session, timed: range
) -> tuple[dict[str, int], dict[str, dict[str, Spent]]]:
    if not isinstance(session.decoder, ResidentDecoder):
        raise TypeError(f"expected engines that stay on the device, got those of {target}")
    session.follow(expected_schedule(session.specs, timed.stop))
    _decode(session, timed.start)  # what is compiled late is compiled now
    times = session.decoder.profile()
    fires = _decode(session, len(timed))
    found = {}
    for name, layers in times.items():
        kinds = kernel_kinds(bundle, target, name)
        found[name] = _sums([(kinds.get(layer, layer), 1e3 * ms) for layer, ms in layers.items()], fires[name])
    return fires, found


def kernel_kinds(bundle: Bundle, target: str, stage: str) -> dict[str, str]:
    """What each kernel of a stage's engine is, by the name that the library times it under."""
    from ..export.tensorrt.layers import read_layers  # here, as a machine that profiles the CPU may have no onnx

    layers = read_layers(bundle.file(bundle.manifest.engines[target][stage]))
    return {kernel.name: kernel.label for kernel in layers.kernels}


def _decode(session: Session, tokens: int) -> dict[str, int]:
    """How often each stage fired."""
    token, before = np.zeros((1, 1), np.int64), dict(session.fires)
    for _ in range(tokens):
        session.advance(token, last_only=True)
    return {name: count - before[name] for name, count in session.fires.items()}


def _sums(spent: Sequence[tuple[str, float]], calls_each: int = 1) -> dict[str, Spent]:
    """By operator; each pair of an operator and its microseconds stands for so many calls."""
    sums: dict[str, Spent] = {}
    for operator, us in spent:
        calls, before = sums.get(operator, Spent())
        sums[operator] = Spent(calls + calls_each, before + us)
    return sums


def _summary(
    target: str, threads: int, tokens: range, fires: Mapping[str, int], found: Mapping[str, Mapping[str, Spent]]
) -> Profile:
    total = sum(spent.us for sums in found.values() for spent in sums.values()) or 1.0
    stages = []
    for name, count in fires.items():
        sums = found.get(name, {})
        operators = tuple(
            OperatorTime(
                operator=operator,
                calls_per_token=spent.calls / len(tokens),
                us_per_token=spent.us / len(tokens),
                share=spent.us / total,
            )
            for operator, spent in sorted(sums.items(), key=lambda item: -item[1].us)
        )
        us = sum(spent.us for spent in sums.values())
        stages.append(
            StageTime(
                name=name,
                fires_per_token=count / len(tokens),
                us_per_token=us / len(tokens),
                share=us / total,
                operators=operators,
            )
        )
    return Profile(target=target, threads=threads, tokens=len(tokens), us_per_token=total / len(tokens), stages=tuple(stages))
