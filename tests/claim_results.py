"""Results of claims that nobody measured, for what prints and judges them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foveal.bench.claims.firing import verdict_on_firing
from foveal.bench.claims.memory import verdict_on_memory
from foveal.bench.claims.order import verdict_on_order
from foveal.bench.claims.rare_words import verdict_on_rare_words
from foveal.bench.claims.result import (
    CLAIMS_SCHEMA_VERSION,
    ClaimsResult,
    EngineCall,
    FiringModel,
    FiringResult,
    FiringStage,
    MemoryCase,
    MemoryResult,
    OrderResult,
    RareGroup,
    RareModel,
    RareWordsResult,
    SpeedCase,
    SpeedResult,
)
from foveal.bench.claims.speed import verdict_on_speed
from foveal.bench.environment import Environment
from foveal.calibration.probe import Distance, Probe

DEEP, VANILLA = "top-down 1@4 1@1", "vanilla 2@1"


def speed_case(model: str, context: int, speedups: Sequence[float] = (), precision: str = "fp32") -> SpeedCase:
    """Of a model that decodes so many times as fast as the vanilla one in three rounds; the last is the median."""
    rounds = [100.0 * speedup for speedup in speedups] or [100.0]
    return SpeedCase(
        model=model,
        precision=precision,
        context=context,
        layers=2,
        layer_equivalents=1.25,
        weight_bytes_per_token=1e6,
        cache_bytes_per_token=1e5,
        tokens_per_s=rounds[-1],
        tokens_per_s_by_round=rounds,
        ms_where_coarse_fires=2.0 if speedups else None,
        ms_where_none_does=1.0,
        speedup=speedups[-1] if speedups else None,
        speedup_by_round=list(speedups),
        by_layers=1.6 if speedups else None,
        by_bytes=1.5 if speedups else None,
        threads=2,
        overlap=False,
    )


def memory_case(model: str, tokens: int, weights: int, state: int, working: int | None = 100) -> MemoryCase:
    """Of a tenth of whose state are rows; what a process holds besides is 50 bytes."""
    known = working is not None
    return MemoryCase(
        model=model,
        layers=2,
        layer_equivalents=1.25,
        tokens=tokens,
        weights=weights,
        tables=0,
        caches=state - state // 10,
        rows=state // 10,
        working=working,
        loaded=weights + 50 if known else None,
        peak=weights + 50 + state + (working or 0) if known else None,
    )


def firing_model(firings: int = 2, expected: int = 2) -> FiringModel:
    """Eight tokens of a model whose coarse stage fires at the end of each group of four."""
    common: dict[str, Any] = {"layers": 1, "engine_ms": 0.5}
    return FiringModel(
        model=DEEP,
        hierarchy="1@4 1@1",
        layers=2,
        layers_run_per_token=1.25,
        tokens=8,
        stages=[
            FiringStage(name="4", stride=4, fires="close", firings=firings, expected=expected, **common),
            FiringStage(name="1", stride=1, fires="open", firings=8, expected=8, **common),
        ],
        calls=[
            EngineCall(stage="1", token=6, begin_us=0.0, end_us=90.0),
            EngineCall(stage="4", token=7, begin_us=100.0, end_us=150.0),
            EngineCall(stage="1", token=7, begin_us=160.0, end_us=240.0),
        ],
    )


def group(difference: float, half_width: float | None = 0.1, at_least: int = 0, below: int | None = None) -> RareGroup:
    """A difference from 4 nats."""
    return RareGroup(
        at_least=at_least,
        below=below,
        count=1234,
        nats=4 + difference,
        vanilla_nats=4.0,
        difference=difference,
        half_width=half_width,
    )


def rare_model(token: RareGroup, word: RareGroup) -> RareModel:
    """Whose rarest groups are these."""
    return RareModel(
        model="top_down",
        hierarchy="1@4 1@1",
        compute=1.02,
        overall=group(0.01),
        tokens=[token, group(0.0, at_least=100)],
        words=[word, group(0.0, at_least=2, below=4)],
    )


def probe(rises: Sequence[float], settles_at: int | None) -> Probe:
    """Spans 33 to 64, 65 to 128 and 129 to 256."""
    spans = zip(((33, 64), (65, 128), (129, 256)), rises, strict=True)
    return Probe(
        bundle="vanilla",
        hierarchy="2@1",
        precision="fp32",
        window=512,
        windows=9,
        threshold=0.05,
        distances=tuple(Distance(first=first, last=last, nats=rise, half_width=0.01) for (first, last), rise in spans),
        settles_at=settles_at,
    )


def claims_result() -> ClaimsResult:
    """All five."""
    speeds = [speed_case(DEEP, 512, (1.2, 1.5, 1.4)), speed_case(VANILLA, 512)]
    memories = [memory_case(DEEP, 512, 2000, 700), memory_case(VANILLA, 512, 1000, 1000)]
    models, probes = [rare_model(group(-0.2), group(0.05))], [probe((0.06, 0.02, 0.0), 65)]
    return ClaimsResult(
        schema_version=CLAIMS_SCHEMA_VERSION,
        command="foveal bench claims",
        environment=Environment(
            created_utc="2026-11-25T00:00:00+00:00",
            cpu="a CPU",
            cpus_usable=2,
            memory_bytes=24 << 30,
            system="Linux",
            python="3.11",
            packages={"foveal": "0.1.0", "onnxruntime": "1.32.0", "numpy": "2.0"},
            load_1min=0.1,
        ),
        quick=False,
        threads=2,
        seconds={"speed": 60.0, "memory": 50.0, "firing": 4.0, "rare-words": 30.0, "order": 20.0},
        problems=["the load average was 3.0 when it began: the machine was not quiet"],
        speed=SpeedResult(
            vanilla=VANILLA, new_tokens=16, rounds=3, cases=speeds, noise=["rounds differ"], verdict=verdict_on_speed(speeds)
        ),
        memory=MemoryResult(
            baselines=[VANILLA],
            chunk=32,
            method="by hand",
            cases=memories,
            missing=[],
            verdict=verdict_on_memory(memories, [VANILLA]),
        ),
        firing=FiringResult(models=[firing_model()], verdict=verdict_on_firing([firing_model()])),
        rare_words=RareWordsResult(
            vanilla="2@1",
            texts=["evaluation.txt"],
            window=512,
            windows=9,
            text_tokens=4608,
            models=models,
            verdict=verdict_on_rare_words(models),
        ),
        order=OrderResult(texts=["evaluation.txt"], distance=50, probes=probes, verdict=verdict_on_order(probes, 50)),
    )
