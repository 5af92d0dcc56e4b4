"""The bundles of one run against its first, by the rounds that took turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import ConfigError
from .ratio import paired_ratio
from .result import Comparison, Metric, ModelResult

LEAST_ROUNDS = 3
"""Below which an interval is as wide as to say nothing."""


def require_comparable(models: int, rounds: int) -> None:
    """Raise a ConfigError unless there is something to compare, and an interval to give."""
    if models < 2:
        raise ConfigError(f"a comparison takes at least 2 models, got {models}; name another bundle, or leave --compare out")
    if rounds < LEAST_ROUNDS:
        raise ConfigError(
            f"a confidence interval takes at least {LEAST_ROUNDS} rounds, got {rounds}; give more --rounds, or leave --compare "
            "out"
        )


def compare(models: Sequence[ModelResult]) -> list[Comparison]:
    """Of every model but the first, against the first."""
    if not models:
        return []
    first, *others = models
    base = by_round(first)
    return [
        Comparison(name=model.name, than=first.name, metric=metric, ratio=paired_ratio(values, base[metric]))
        for model in others
        for metric, values in by_round(model).items()
    ]


def by_round(model: ModelResult) -> Mapping[Metric, Sequence[float]]:
    """What is compared, of each round."""
    latency = model.latency
    return {
        "decode_tokens_per_s": latency.decode_tokens_per_s_by_round,
        "prefill_tokens_per_s": latency.prefill_tokens_per_s_by_round,
        "itl_p50_ms": latency.itl_p50_ms_by_round,
    }
