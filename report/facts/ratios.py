"""How many times as fast one model decodes as another."""

from __future__ import annotations

from collections.abc import Sequence

from ...bench.ratio import paired_ratio
from ...bench.result import ModelResult
from ..document import RateRatio


def ratios_of(models: Sequence[ModelResult]) -> list[RateRatio]:
    """Of every model against every other; rounds are paired, as those of one number ran one after the other."""
    return [_ratio(model, other) for model in models for other in models if other is not model]


def _ratio(model: ModelResult, other: ModelResult) -> RateRatio:
    mine, theirs = model.latency.decode_tokens_per_s_by_round, other.latency.decode_tokens_per_s_by_round
    return RateRatio(name=model.name, than=other.name, ratio=paired_ratio(mine, theirs))
