"""What an official Hourglass is, as data."""

from __future__ import annotations

from typing import Literal

import msgspec

from ...errors import ConfigError
from ...hierarchy import Hierarchy
from ..config import LayerConfig, ModelConfig


class TraxConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes and choices of a `TraxHourglass`.

    Attributes:
        hierarchy: with the layers at token rate, `"5@1 24@3 5@1"`.
        context: the most tokens of a session: engines hold a table of all distances within it.

    Raises:
        ConfigError: sizes that contradict each other, or a hierarchy that is no hourglass.
    """

    hierarchy: str
    vocab_size: int
    dim: int
    heads: int
    ff_dim: int
    context: int
    shortening: Literal["average", "linear"] = "average"
    upsampling: Literal["repeat", "linear"] = "linear"
    activation: Literal["gelu", "gelu_tanh"] = "gelu_tanh"

    def __post_init__(self) -> None:
        if self.levels.is_vanilla:
            raise ConfigError(f'hierarchy "{self.hierarchy}" has one level only; write for instance "1@1 6@3 1@1"')
        for name in ("vocab_size", "dim", "heads", "ff_dim", "context"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.dim % self.heads or self.dim % 2:
            raise ConfigError(f"the width must be even and a multiple of the heads, got {self.dim} and {self.heads} heads")

    @property
    def levels(self) -> Hierarchy:
        """The parsed hierarchy."""
        return Hierarchy.parse(self.hierarchy).require_hourglass()

    @property
    def layer(self) -> LayerConfig:
        """What every layer is like."""
        return LayerConfig(
            dim=self.dim,
            heads=self.heads,
            head_dim=self.dim // self.heads,
            ff_dim=self.ff_dim,
            norm_eps=1e-6,
            activation=self.activation,
            qkv_bias=True,
        )

    @property
    def resampling(self) -> ModelConfig:
        """The same for `Shorten` and `Lengthen`, which every family shares."""
        return ModelConfig(
            hierarchy=self.hierarchy,
            vocab_size=self.vocab_size,
            dim=self.dim,
            heads=self.heads,
            head_dim=self.dim // self.heads,
            ff_dim=self.ff_dim,
            max_positions=self.context,
            shortening=self.shortening,
            upsampling=self.upsampling,
        )
