"""What reading a prompt takes: many rows to each weight, so that arithmetic counts beside bytes."""

from __future__ import annotations

from ..contract import BEGINNING
from ..runtime.host import MOST_TOKENS
from .firings import firings_of
from .rates import EngineRates, Rates
from .shapes import Shape, StageShape


def prompt_seconds(shape: Shape, rates: Rates, tokens: int) -> float | None:
    """From a prompt of so many tokens to its first logits; None where the device's arithmetic is not known.

    A prompt is read in calls of at most `MOST_TOKENS`. The head is computed for the last row alone. Attention counts two
    products of each row with the rows before it.

    Raises:
        KeyError: rates of another precision.
    """
    engine = rates.engines[shape.precision]
    flops = engine.flops
    if flops is None:
        return None
    found, start = rates.step_s + rates.logit_s * shape.vocab_size, 0
    while start < tokens:
        chunk = min(MOST_TOKENS, tokens - start)
        found += sum(_stage_seconds(stage, engine, flops, start, chunk, shape) for stage in shape.stages)
        start += chunk
    return found


def _stage_seconds(stage: StageShape, engine: EngineRates, flops: float, start: int, tokens: int, shape: Shape) -> float:
    firings = firings_of(stage.spec)
    before, after = firings.within(start if start else BEGINNING), firings.within(start + tokens)
    rows = after - before
    if not rows:
        return 0.0
    head = shape.vocab_size * shape.dim if stage.spec.output == "logits" else 0
    numbers = rows * max(stage.multiplied - head, 0) + head
    kept = [cache.keeps for cache in stage.spec.caches]
    looked_at = [min((before + after) / 2, keeps or float("inf")) for keeps in kept]
    attended = rows * sum(cache.heads * cache.width * seen for cache, seen in zip(stage.spec.caches, looked_at, strict=True))
    launch = engine.launch_s(stage.spec.layers, stage.products, shape.columns)
    return launch + max(stage.weight_bytes / engine.weights.memory, 2 * (numbers + attended) / flops)
