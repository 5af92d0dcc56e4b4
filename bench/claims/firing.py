"""Claim 3: coarse layers run once every k tokens. Counted, and drawn as they run."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import numpy as np

from ...contract import StageSpec
from ...forecast.firings import firings_of
from ...progress import Progress
from ...runtime.model import load
from ..statistics import NS_PER_MS
from .result import EngineCall, FiringModel, FiringResult, FiringStage, Verdict
from .settings import Case, Settings
from .verdicts import answer_of
from .workshop import Workshop

_NS_PER_US = 1e3


def measure_firing(workshop: Workshop, settings: Settings, threads: int, report: Progress) -> FiringResult:
    """Decode from an empty past, and see every call of every engine."""
    models = []
    for place, case in enumerate(settings.deep):
        bundle = workshop.random(settings.timed, case)
        report(f"watching {case.name}", place, len(settings.deep))
        models.append(watch(bundle, case, settings.firing_tokens, settings.shown, threads))
    return FiringResult(models=models, verdict=verdict_on_firing(models))


def watch(bundle: Path, case: Case, tokens: int, shown: int, threads: int) -> FiringModel:
    """Decode so many tokens one by one; stages run in turn, none beside another, for calls are timed one by one."""
    model = load(bundle, threads=threads, overlap=False)
    firings = {entry.spec.name: 0 for entry in model.manifest.stages}
    times: dict[str, list[int]] = {name: [] for name in firings}
    calls: list[tuple[str, int, int, int]] = []
    with model.session(capacity=tokens) as session:

        def record(spec: StageSpec, count: int, elapsed_ns: int) -> None:
            ended = time.perf_counter_ns()
            firings[spec.name] += count
            times[spec.name].append(elapsed_ns)
            if session.position >= tokens - shown:
                calls.append((spec.name, session.position, ended - elapsed_ns, ended))

        session.observer = record
        ids = np.zeros((1, 1), np.int64)
        for _ in range(tokens):
            ids = session.advance(ids, last_only=True)[:, 0].argmax(-1)[:, None]
    stages = [
        FiringStage(
            name=entry.spec.name,
            stride=entry.spec.stride,
            fires=entry.spec.fires,
            layers=entry.spec.layers,
            firings=firings[entry.spec.name],
            expected=round(firings_of(entry.spec).within(tokens)),
            engine_ms=median(times[entry.spec.name]) / NS_PER_MS,
        )
        for entry in model.manifest.stages
    ]
    began = min(call[2] for call in calls)
    return FiringModel(
        model=case.name,
        hierarchy=case.hierarchy,
        layers=sum(stage.layers for stage in stages),
        layers_run_per_token=sum(stage.layers * stage.firings for stage in stages) / tokens,
        tokens=tokens,
        stages=stages,
        calls=[
            EngineCall(stage=name, token=token, begin_us=(start - began) / _NS_PER_US, end_us=(end - began) / _NS_PER_US)
            for name, token, start, end in calls
        ],
    )


def verdict_on_firing(models: list[FiringModel]) -> Verdict:
    """It holds for a model whose every stage fired once for every `stride` tokens, as its specification says."""
    right = [
        all(stage.firings == stage.expected and stage.firings == model.tokens // stage.stride for stage in model.stages)
        for model in models
    ]
    return Verdict(answer=answer_of(right), sentence="; ".join(map(_said, models)) + ".")


def _said(model: FiringModel) -> str:
    rarest = min(stage.firings for stage in model.stages)
    return (
        f"{model.model}: in {model.tokens} tokens the coarsest stage fired {rarest} times, "
        f"and of {model.layers} layers {model.layers_run_per_token:.2f} ran per token"
    )
