"""Sizes of models that are described by a hierarchy: forecast, or built with random weights."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError
from .config import Architecture, ModelConfig, Positions, architecture_of, head_dim_of

LARGEST = 2**24
"""Of widths, vocabularies and contexts: beyond any model, and small enough to be multiplied."""


def require_size(name: str, value: int) -> None:
    """Raises `ConfigError` where a size is none, or above `LARGEST`."""
    if value < 1:
        raise ConfigError(f"{name} must be at least 1, got {value:,}")
    if value > LARGEST:
        raise ConfigError(f"{name} must be at most {LARGEST:,}, got {value:,}")


@dataclass(frozen=True)
class Sizes:
    """What a hierarchy does not say of a model; the defaults are the Hourglass paper's.

    Attributes:
        context: the number of positions.
        positions: how they are told apart; those of a retina model are learned always: it has no other way.
    """

    dim: int = 512
    heads: int = 8
    ff_dim: int = 2048
    vocab_size: int = 256
    context: int = 1024
    positions: Positions = "learned"

    def config(self, hierarchy: str, architecture: Architecture | None = None) -> ModelConfig:
        """Of a model of these sizes; None: of the architecture that has its levels in this order.

        Raises:
            ConfigError: a malformed hierarchy, one that the architecture can't have, or sizes that contradict each other.
        """
        for name in ("dim", "ff_dim", "vocab_size", "context"):
            require_size(name, getattr(self, name))
        chosen = architecture_of(hierarchy) if architecture is None else architecture
        return ModelConfig(
            architecture=chosen,
            hierarchy=hierarchy,
            vocab_size=self.vocab_size,
            dim=self.dim,
            heads=self.heads,
            head_dim=head_dim_of(self.dim, self.heads),
            ff_dim=self.ff_dim,
            max_positions=self.context,
            positions="learned" if chosen == "retina" else self.positions,
        )
