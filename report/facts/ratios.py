"""How many times as fast one model decodes as another, by the rounds of one run, which took turns."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from ...bench.result import ModelResult
from ..document import Ratio


def ratios_of(models: Sequence[ModelResult]) -> list[Ratio]:
    """Of every model against every other; rounds are paired, as those of one number ran one after the other."""
    return [_ratio(model, other) for model in models for other in models if other is not model]


def _ratio(model: ModelResult, other: ModelResult) -> Ratio:
    mine, theirs = model.latency.decode_tokens_per_s_by_round, other.latency.decode_tokens_per_s_by_round
    each = [fast / slow for fast, slow in zip(mine, theirs, strict=True)]
    return Ratio(name=model.name, than=other.name, median=median(each), least=min(each), most=max(each))
