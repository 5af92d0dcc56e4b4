"""Shapes and devices small enough to forecast by hand."""

from __future__ import annotations

from typing import Any

from foveal.contract import CacheSpec, InputSpec, StageSpec
from foveal.forecast.devices import MeasuredDevice
from foveal.forecast.rates import EngineRates, Rates, Reads
from foveal.forecast.shapes import Shape, StageShape

KEYS = CacheSpec(name="0.key", heads=2, width=8)


def spec(name: str, stride: int = 1, **choices: Any) -> StageSpec:
    """A stage with one layer and one cache."""
    usual: dict[str, Any] = {
        "inputs": (InputSpec(kind="tokens"),),
        "output": "hidden",
        "width": 4,
        "layers": 1,
        "caches": (KEYS,),
        "parameters": 0,
    }
    return StageSpec(name=name, stride=stride, **{**usual, **choices})


def stage(name: str, stride: int = 1, weight_bytes: float = 1000, **choices: Any) -> StageShape:
    """Of a `spec`: two products of 200 numbers in all; a row of each cache is 10 bytes."""
    of = spec(name, stride, **choices)
    row_bytes = {cache.name: 10 for cache in of.caches}
    return StageShape(spec=of, products=2, multiplied=200, weight_bytes=weight_bytes, table_bytes=50.0, row_bytes=row_bytes)


def shape(*stages: StageShape, on_gpu: bool = False) -> Shape:
    """Of stages, the last of which is taken for the one that gives logits, of 4 tokens."""
    return Shape(
        name="by hand",
        hierarchy="1@1",
        precision="fp32",
        dim=4,
        widest=16,
        context=64,
        parameters=400,
        layer_equivalents=1.0,
        on_gpu=on_gpu,
        stages=stages,
    )


def engine(**choices: Any) -> EngineRates:
    """A stage takes 1 s, a layer 2, a product 0.5; 100 bytes of weights and 10 of caches a second; 100 operations."""
    usual: dict[str, Any] = {
        "stage_s": 1.0,
        "layer_s": 2.0,
        "product_s": 0.5,
        "weights": Reads.flat(100.0),
        "caches": Reads.flat(10.0),
        "flops": 100.0,
    }
    return EngineRates(**{**usual, **choices})


def rates(cache_bytes: float = 0.0, **choices: Any) -> Rates:
    """The host takes 3 s for a step, and a quarter for each logit."""
    return Rates(step_s=3.0, logit_s=0.25, cache_bytes=cache_bytes, engines={"fp32": engine(**choices)})


def device(**choices: Any) -> MeasuredDevice:
    """That was measured so."""
    found = rates(**choices)
    return MeasuredDevice(
        title="by hand",
        created_utc="2026-11-30T00:00:00+00:00",
        threads=1,
        memory_bytes=10**9,
        by_engines={"native": found, "graph": found},
    )
