"""What one may ask of the TensorRT engines of a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...bundle import ModelInfo
from ...contract import Limits
from ...errors import ConfigError

PREFILL = 512
"""Tokens of one call unless said otherwise: activations take memory in proportion, and longer texts are read in several."""


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How TensorRT engines are built; precisions are not its matter, they stand in the graphs.

    Attributes:
        max_batch: sequences that a session may have.
        capacity: tokens that they may have, which their caches take memory for; None: the model's context.
        max_prefill: tokens of one call; None: `PREFILL`, or the capacity if that is less.
        compute_capabilities: of the GPUs to build for, as `"8.9"`; none: every RTX GPU since Ampere. `tensorrt-rtx` only:
            `tensorrt` builds for the GPU it finds.
        timing_cache: a file to take measured kernel times from, and to add new ones to. `tensorrt` only: `tensorrt-rtx`
            measures nothing while it builds.
        error_on_miss: refuse to build what the engine cache does not hold.
        strip_weights: leave the weights out of the engine, for runtimes that refit it; foveal's own refuses such engines.
        dialect: to build from; None: the one that the library takes best.

    Raises:
        ConfigError: a size below 1.
    """

    max_batch: int = 1
    capacity: int | None = None
    max_prefill: int | None = None
    compute_capabilities: tuple[str, ...] = ()
    timing_cache: Path | None = None
    error_on_miss: bool = False
    strip_weights: bool = False
    dialect: str | None = None

    def __post_init__(self) -> None:
        for name in ("max_batch", "capacity", "max_prefill"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")

    def limits(self, model: ModelInfo) -> Limits:
        """The largest shapes that a model's engines take.

        Raises:
            ConfigError: more positions than the model has, or a prefill that the capacity can't hold.
        """
        capacity = self.capacity or model.context
        if model.max_positions is not None and capacity > model.max_positions:
            raise ConfigError(
                f"capacity {capacity} is more than the model has positions: {model.max_positions}; choose at most that"
            )
        if self.max_prefill is not None and self.max_prefill > capacity:
            raise ConfigError(f"max_prefill {self.max_prefill} is more than the capacity, {capacity}; choose at most that")
        return Limits(batch=self.max_batch, capacity=capacity, prefill=self.max_prefill or min(PREFILL, capacity))
