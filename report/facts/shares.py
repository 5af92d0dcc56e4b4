"""Which stage takes what share of the engines' time."""

from __future__ import annotations

from ...bench.result import ModelResult


def time_shares(model: ModelResult) -> dict[str, float]:
    """By stage, of the time that engines take per token; of a model without stages nothing is known."""
    total = sum(stage.ms_per_token for stage in model.stages)
    return {stage.name: stage.ms_per_token / total for stage in model.stages}
